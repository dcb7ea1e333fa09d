"""One call of one rerank client, in the client's own environment: `python client_calls.py NAME`, with the service's URL
and key, the query and the documents as JSON on the standard input; the ranking as JSON on the standard output.

This module imports nothing of RerankOps, and of the clients only the one that is asked for. What a client needs is its
base URL, its key and a model; none of them is changed. `CALLS` says which distribution each one is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

Ranking = list[tuple[int, float]]
"""Index and score of each document, best first."""


class Asked:
    """What is asked, and of whom."""

    def __init__(self, url: str, key: str, query: str, documents: list[str]) -> None:
        self.url, self.key, self.query, self.documents = url, key, query, documents

    def indices(self, texts: Iterable[tuple[str, float]]) -> Ranking:
        """For clients that return texts, which all differ."""
        return [(self.documents.index(text), score) for text, score in texts]


def _relevance(results: Iterable[Any]) -> Ranking:
    return [(result.index, result.relevance_score) for result in results]


def _cohere_v2(asked: Asked) -> Ranking:
    import cohere

    client = cohere.ClientV2(base_url=asked.url, api_key=asked.key)
    return _relevance(client.rerank(model="champion", query=asked.query, documents=asked.documents).results)


def _cohere_v2_async(asked: Asked) -> Ranking:
    import cohere

    async def ask() -> Ranking:
        client = cohere.AsyncClientV2(base_url=asked.url, api_key=asked.key)
        return _relevance((await client.rerank(model="champion", query=asked.query, documents=asked.documents)).results)

    return asyncio.run(ask())


def _cohere_v1(asked: Asked) -> Ranking:
    import cohere

    client = cohere.Client(base_url=asked.url, api_key=asked.key)
    answer = client.rerank(model="champion", query=asked.query, documents=asked.documents, return_documents=True)
    assert [result.document.text for result in answer.results] == [asked.documents[r.index] for r in answer.results]
    return _relevance(answer.results)


def _voyageai(asked: Asked) -> Ranking:
    import voyageai

    client = voyageai.Client(api_key=asked.key, base_url=f"{asked.url}/v1")
    return _relevance(client.rerank(asked.query, asked.documents, model="champion").results)


def _voyageai_top_k(asked: Asked) -> Ranking:
    import voyageai

    client = voyageai.Client(api_key=asked.key, base_url=f"{asked.url}/v1")
    return _relevance(client.rerank(asked.query, asked.documents, model="champion", top_k=len(asked.documents)).results)


def _litellm(provider: str, path: str) -> Callable[[Asked], Ranking]:
    def call(asked: Asked) -> Ranking:
        import litellm

        answer = litellm.rerank(
            model=f"{provider}/champion",
            query=asked.query,
            documents=asked.documents,
            api_base=f"{asked.url}{path}",
            api_key=asked.key,
            top_n=len(asked.documents),
        )
        return [(row["index"], row["relevance_score"]) for row in answer.results]

    return call


def _rerankers(provider: str, path: str) -> Callable[[Asked], Ranking]:
    def call(asked: Asked) -> Ranking:
        from rerankers.models.api_rankers import APIRanker

        ranker = APIRanker("champion", asked.key, provider, verbose=0, url=f"{asked.url}{path}")
        return [(row.document.doc_id, row.score) for row in ranker.rank(asked.query, asked.documents).results]

    return call


def _haystack(ranker: Any, asked: Asked) -> Ranking:
    from haystack import Document

    if hasattr(ranker, "warm_up"):
        ranker.warm_up()
    documents = ranker.run(query=asked.query, documents=[Document(content=text) for text in asked.documents])
    return asked.indices((document.content, document.score) for document in documents["documents"])


def _haystack_cohere(asked: Asked) -> Ranking:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return _haystack(
        CohereRanker(model="champion", api_key=Secret.from_token(asked.key), api_base_url=asked.url), asked
    )


def _haystack_jina(asked: Asked) -> Ranking:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    key = Secret.from_token(asked.key)
    return _haystack(JinaRanker(model="champion", api_key=key, base_url=f"{asked.url}/v1/rerank"), asked)


def _haystack_tei(asked: Asked) -> Ranking:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return _haystack(HuggingFaceTEIRanker(url=asked.url, token=Secret.from_token(asked.key)), asked)


def _llama_index(postprocessor: Any, asked: Asked) -> Ranking:
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in asked.documents]
    ranked = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(asked.query))
    return asked.indices((node.node.text, node.score) for node in ranked)


def _llama_index_tei(asked: Asked) -> Ranking:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    count, token = len(asked.documents), f"Bearer {asked.key}"
    return _llama_index(TextEmbeddingInference(top_n=count, base_url=asked.url, auth_token=token), asked)


def _llama_index_jina(asked: Asked) -> Ranking:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    base = f"{asked.url}/v1"
    return _llama_index(
        JinaRerank(top_n=len(asked.documents), model="champion", base_url=base, api_key=asked.key), asked
    )


def _llama_index_cohere(asked: Asked) -> Ranking:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    count = len(asked.documents)
    return _llama_index(CohereRerank(top_n=count, model="champion", base_url=asked.url, api_key=asked.key), asked)


def _langchain(compressor: Any, asked: Asked) -> Ranking:
    from langchain_core.documents import Document

    documents = [Document(page_content=text) for text in asked.documents]
    ranked = compressor.compress_documents(documents, asked.query)
    return asked.indices((document.page_content, document.metadata["relevance_score"]) for document in ranked)


def _langchain_cohere(asked: Asked) -> Ranking:
    from langchain_cohere import CohereRerank

    count = len(asked.documents)
    return _langchain(CohereRerank(model="champion", base_url=asked.url, cohere_api_key=asked.key, top_n=count), asked)


def _langchain_voyageai(asked: Asked) -> Ranking:
    from langchain_voyageai import VoyageAIRerank

    return _langchain(VoyageAIRerank(model="champion", base_url=f"{asked.url}/v1", api_key=asked.key), asked)


def _langchain_jina(asked: Asked) -> Ranking:
    from langchain_community.document_compressors import JinaRerank, jina_rerank

    jina_rerank.JINA_API_URL = f"{asked.url}/v1/rerank"  # A constant: the client has no setting for it.
    return _langchain(JinaRerank(model="champion", jina_api_key=asked.key, top_n=len(asked.documents)), asked)


def _infinity(asked: Asked) -> Ranking:
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    client = AuthenticatedClient(base_url=f"{asked.url}/infinity", token=asked.key)
    answer = rerank.sync(client=client, body=RerankInput(asked.query, asked.documents, return_documents=True))
    assert [result.document for result in answer.results] == [asked.documents[r.index] for r in answer.results]
    return _relevance(answer.results)


CALLS: dict[str, tuple[str, Callable[[Asked], Ranking]]] = {
    "cohere ClientV2": ("cohere", _cohere_v2),
    "cohere AsyncClientV2": ("cohere", _cohere_v2_async),
    "cohere Client (v1)": ("cohere", _cohere_v1),
    "voyageai": ("voyageai", _voyageai),
    "voyageai with top_k": ("voyageai", _voyageai_top_k),
    "litellm cohere": ("litellm", _litellm("cohere", "")),
    "litellm jina_ai": ("litellm", _litellm("jina_ai", "")),
    "litellm voyage": ("litellm", _litellm("voyage", "")),
    "litellm hosted_vllm": ("litellm", _litellm("hosted_vllm", "")),
    "litellm infinity": ("litellm", _litellm("infinity", "/infinity")),
    "litellm huggingface": ("litellm", _litellm("huggingface", "")),
    "rerankers cohere": ("rerankers", _rerankers("cohere", "/v1/rerank")),
    "rerankers jina": ("rerankers", _rerankers("jina", "/v1/rerank")),
    "rerankers voyage": ("rerankers", _rerankers("voyage", "/v1/rerank")),
    "rerankers TEI": ("rerankers", _rerankers("text-embeddings-inference", "/rerank")),
    "rerankers mixedbread": ("rerankers", _rerankers("mixedbread.ai", "/v1/reranking")),
    "haystack CohereRanker": ("cohere-haystack", _haystack_cohere),
    "haystack JinaRanker": ("jina-haystack", _haystack_jina),
    "haystack HuggingFaceTEIRanker": ("huggingface-api-haystack", _haystack_tei),
    "llama-index TextEmbeddingInference": ("llama-index-postprocessor-tei-rerank", _llama_index_tei),
    "llama-index JinaRerank": ("llama-index-postprocessor-jinaai-rerank", _llama_index_jina),
    "llama-index CohereRerank": ("llama-index-postprocessor-cohere-rerank", _llama_index_cohere),
    "langchain CohereRerank": ("langchain-cohere", _langchain_cohere),
    "langchain VoyageAIRerank": ("langchain-voyageai", _langchain_voyageai),
    "langchain JinaRerank, URL patched": ("langchain-community", _langchain_jina),
    "infinity-client": ("infinity-client", _infinity),
}
"""Distribution and call by name."""


def main() -> None:
    """Call the client that the arguments name."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    distribution, call = CALLS[sys.argv[1]]
    ranking = call(Asked(**json.load(sys.stdin)))
    print(json.dumps({"version": version(distribution), "ranking": ranking}))


if __name__ == "__main__":
    main()
