"""First-stage retrieval: embeddings, the FAISS and BM25 indexes, and the candidates that are reranked."""

import dagster as dg

from assets import keys
from assets.making import make, output, predecessor, progress
from assets.policies import MODEL_POOL, NO_CONFIG, OWNERS, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.settings import values_of
from models.store.artifacts import Artifact
from models.store.code_version import code_version

_EMBED = (
    "retrieval.embedding",
    "retrieval.encoder",
    "text.passage_text",
    "weights",
)
_DENSE = (
    "retrieval.dense_index",
    "retrieval.approximate_index",
    "retrieval.string_column",
)
_APPROXIMATE = (
    "index.hnsw_m", "index.hnsw_ef_construction", "index.hnsw_ef_search", "index.hnsw_sq8", "index.ivf_lists",
    "index.ivf_pq_bytes", "index.ivf_probes", "index.rescore", "index.min_recall", "index.recall_queries",
    "index.max_delta_share",
)  # fmt: skip
_LEXICAL = (
    "retrieval.lexical_index",
    "text.tokenize",
    "retrieval.string_column",
)
_CANDIDATES = (
    "retrieval.candidates",
    "retrieval.fusion",
    "retrieval.retriever",
    *_DENSE,
    "retrieval.lexical_index",
    "text.tokenize",
    "retrieval.encoder",
    "text.passage_text",
)


@dg.asset(
    key=keys.PASSAGE_EMBEDDINGS,
    group_name=keys.INDEX,
    kinds={"python", "huggingface"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_EMBED),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={"passages": dg.AssetIn(key=keys.PASSAGES)},
)
def passage_embeddings(
    context: dg.AssetExecutionContext, deployment: Deployment, passages: Artifact
) -> dg.Output[Artifact]:
    """One normalized vector per passage, row i being row i of passages, with a copy of the encoder that made them."""
    from models.store.durable_files import digest_json
    from models.weights import local_weights, weights_digest

    settings, store = deployment.settings(), deployment.store()
    read = values_of(settings, "encoder.max_tokens")
    outside = {"weights": weights_digest(settings.encoder.model)}

    def build(folder):
        from models.retrieval.embedding import embed_corpus

        before = predecessor(store, keys.PASSAGE_EMBEDDINGS, modules=_EMBED, settings=read, outside=outside)
        return embed_corpus(
            passages.read_table("passages.parquet", ["title", "text", "content_hash"]),
            local_weights(settings.encoder.model),
            settings.encoder,
            folder,
            checkpoint=store.scratch(f"embeddings-{digest_json([code_version(*_EMBED), read, outside])[:24]}"),
            previous=before and before.folder,
            progress=progress(context, "passages embedded"),
        )

    artifact = make(
        context,
        store,
        keys.PASSAGE_EMBEDDINGS,
        build,
        modules=_EMBED,
        inputs=(passages,),
        settings=read,
        outside=outside,
    )
    return output(artifact)


@dg.asset(
    key=keys.DENSE_INDEX,
    group_name=keys.INDEX,
    kinds={"faiss"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_DENSE),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins={
        "passages": dg.AssetIn(key=keys.PASSAGES),
        "queries": dg.AssetIn(key=keys.QUERIES),
        "passage_embeddings": dg.AssetIn(key=keys.PASSAGE_EMBEDDINGS),
    },
)
def dense_index(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    passage_embeddings: Artifact,
) -> dg.Output[Artifact]:
    """The FAISS index over the passage embeddings, and its recall on queries of the corpus where it is approximate."""
    import numpy as np

    from models.retrieval.approximate_index import choose_kind

    settings, store = deployment.settings(), deployment.store()
    embeddings = np.load(passage_embeddings.path("embeddings.npy"), mmap_mode="r", allow_pickle=False)
    kind = choose_kind(len(embeddings), embeddings.shape[1], settings.index)

    def query_vectors():
        from models.corpus.splits import sample_by_hash
        from models.retrieval.encoder import Encoder

        asked = sample_by_hash(queries.read_table("queries.parquet"), settings.index.recall_queries)
        encoder = Encoder.load(
            passage_embeddings.folder / "encoder", passage_embeddings.read_json("encoder.json")["max_tokens"]
        )
        return encoder.encode_queries(asked["text"].tolist())

    def build(folder):
        from models.retrieval.dense_index import build_index

        before = predecessor(store, keys.DENSE_INDEX, modules=_DENSE)
        return build_index(
            folder,
            embeddings,
            passages.read_table("passages.parquet", ["passage_id"])["passage_id"].tolist(),
            kind,
            settings.index,
            query_vectors,
            previous=before and (before.data_version, before.folder),
        )

    artifact = make(
        context,
        store,
        keys.DENSE_INDEX,
        build,
        modules=_DENSE,
        # An exact index has no recall to measure, nor settings.
        inputs=(passages, passage_embeddings) if kind == "flat" else (passages, queries, passage_embeddings),
        settings={} if kind == "flat" else values_of(settings, *_APPROXIMATE),
        outside={"kind": kind},
    )
    return output(artifact)


@dg.asset(
    key=keys.LEXICAL_INDEX,
    group_name=keys.INDEX,
    kinds={"python"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_LEXICAL),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins={"passages": dg.AssetIn(key=keys.PASSAGES)},
)
def lexical_index(context: dg.AssetExecutionContext, deployment: Deployment, passages: Artifact) -> dg.Output[Artifact]:
    """The BM25 index over titles and texts."""
    settings = deployment.settings()

    def build(folder):
        from models.retrieval.lexical_index import LexicalIndex, read_texts

        ids = passages.read_table("passages.parquet", ["passage_id"])["passage_id"].tolist()
        texts = read_texts(passages.path("passages.parquet"))
        index = LexicalIndex.build(texts, ids, settings.index.bm25_k1, settings.index.bm25_b)
        index.save(folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        return {"dagster/row_count": len(ids), "words": index.words, "bytes": size}

    artifact = make(
        context,
        deployment.store(),
        keys.LEXICAL_INDEX,
        build,
        modules=_LEXICAL,
        inputs=(passages,),
        settings=values_of(settings, "index.bm25_k1", "index.bm25_b"),
    )
    return output(artifact)


@dg.asset(
    key=keys.CANDIDATES,
    group_name=keys.INDEX,
    kinds={"python", "faiss"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_CANDIDATES),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={
        "passages": dg.AssetIn(key=keys.PASSAGES),
        "queries": dg.AssetIn(key=keys.QUERIES),
        "evaluation_set": dg.AssetIn(key=keys.EVALUATION_SET),
        "passage_embeddings": dg.AssetIn(key=keys.PASSAGE_EMBEDDINGS),
        "dense_index": dg.AssetIn(key=keys.DENSE_INDEX),
        "lexical_index": dg.AssetIn(key=keys.LEXICAL_INDEX),
    },
)
def candidates(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
) -> dg.Output[Artifact]:
    """Hybrid candidates of the training and evaluation queries, and the first-stage rankings of the evaluation
    queries."""
    from models.store.durable_files import digest_json

    settings, store = deployment.settings(), deployment.store()
    max_tokens = passage_embeddings.read_json("encoder.json")["max_tokens"]
    read = values_of(settings, "index.rrf_k", "index.depth", "evaluation.candidates", "training.max_queries")
    outside = {"encoder": digest_json([passage_embeddings.manifest.inputs["weights"], max_tokens])}

    def build(folder):
        from models.retrieval.candidates import ENCODING, build_all_candidates
        from models.retrieval.retriever import open_retriever

        retriever = open_retriever(
            passages.read_table("passages.parquet", ["passage_id", "document_id", "access"]),
            embeddings=passage_embeddings.folder,
            dense=dense_index.folder,
            lexical=lexical_index.folder,
            settings=settings.index,
        )
        before = predecessor(store, keys.CANDIDATES, modules=_CANDIDATES, settings=read, outside=outside)
        return build_all_candidates(
            queries.read_table("queries.parquet"),
            evaluation_set.read_table("queries.parquet"),
            retriever,
            folder,
            candidates=settings.evaluation.candidates,
            depth=settings.index.depth,
            max_train_queries=settings.training.max_queries,
            previous=before and before.folder,
            encoding_seconds=before and before.summary.get(ENCODING),
            progress=progress(context, "queries retrieved"),
        )

    artifact = make(
        context,
        store,
        keys.CANDIDATES,
        build,
        modules=_CANDIDATES,
        inputs=(passages, queries, evaluation_set, passage_embeddings, dense_index, lexical_index),
        settings=read,
        outside=outside,
    )
    return output(artifact)


ASSETS = [passage_embeddings, dense_index, lexical_index, candidates]
