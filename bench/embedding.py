"""How fast passages are embedded, and what bfloat16 changes: `python -m bench.embedding [--passages 4096]`.

Embeds passages of the current deployment (RERANKOPS_HOME) with `SentenceTransformer.encode`, and with our encoder in
float32 and, where the CPU multiplies it, in bfloat16, in turns, and writes `embedding.<kind of CPU>` of
docs/benchmarks/results.json: passages per second, the cosine of each vector to that of sentence-transformers, and with
`--dense` nDCG@10 of dense search on the development queries by all passages in each precision.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from sentence_transformers import SentenceTransformer

from bench.machine import cpu_kind
from bench.results import merge
from models.cross_encoder.bfloat16 import multiplies_bfloat16
from models.evaluation.evaluation_set import split_of
from models.measures.metrics import MAIN_MEASURE, evaluate_run
from models.retrieval.encoder import Encoder, Precision
from models.settings import load_settings
from models.store.artifacts import ArtifactStore
from models.text.passage_text import passage_text

_ROUNDS, _WARM_UP = 3, 64
_BATCH = 32

Embed = Callable[[pd.DataFrame], np.ndarray]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1024, help="how many are embedded in a round")
    parser.add_argument("--dense", action="store_true", help="search all passages in each precision too")
    options = parser.parse_args()
    settings = load_settings()
    store = ArtifactStore.of(settings)
    embedded = store.require("index/passage_embeddings")
    passages = store.require("corpus/passages").read_table("passages.parquet", ["document_id", "title", "text"])
    folder, length = embedded.folder / "encoder", settings.encoder.max_tokens
    peer = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    peer.max_seq_length = length
    precisions: list[Precision] = ["fp32", "bf16"] if multiplies_bfloat16() else ["fp32"]
    ours = {name: Encoder.load(folder, length, device="cpu", precision=name) for name in precisions}

    def of_peer(table: pd.DataFrame) -> np.ndarray:
        texts = [passage_text(title, text) for title, text in zip(table["title"], table["text"], strict=True)]
        return np.asarray(peer.encode(texts, batch_size=_BATCH, normalize_embeddings=True))

    def of_ours(encoder: Encoder) -> Embed:
        return lambda table: encoder.encode_passages(table["title"].tolist(), table["text"].tolist())

    contestants: dict[str, Embed] = {"sentence_transformers": of_peer} | {
        name: of_ours(encoder) for name, encoder in ours.items()
    }
    sample = passages.iloc[:: max(len(passages) // options.passages, 1)][: options.passages]
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    vectors: dict[str, np.ndarray] = {}
    for embed in contestants.values():
        embed(sample[:_WARM_UP])
    for _ in range(_ROUNDS):
        for name, embed in contestants.items():
            started = time.perf_counter()
            vectors[name] = embed(sample)
            rates[name].append(len(sample) / (time.perf_counter() - started))
    figures: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "passages": len(sample),
        "tokens": length,
        "passages_per_second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "speedup_vs_sentence_transformers": {
            name: round(statistics.median(np.divide(rates[name], rates["sentence_transformers"])), 2) for name in ours
        },
        "smallest_cosine": {
            name: round(float((vectors[name] * vectors["sentence_transformers"]).sum(1).min()), 5) for name in ours
        },
    }
    if options.dense:
        queries, judgments = split_of(store.require("corpus/evaluation_set"), "dev")
        asked = ours["fp32"].encode_queries(queries["text"].tolist())
        figures["development_queries"] = len(queries)
        figures["dense_ndcg"] = {
            name: round(_ndcg(queries, asked @ contestants[name](passages).T, passages, judgments), 4) for name in ours
        }
    print(merge({"embedding": {cpu_kind(): figures}}))


def _ndcg(queries: pd.DataFrame, scores: np.ndarray, passages: pd.DataFrame, judgments: pd.DataFrame) -> float:
    """nDCG@10 of the documents of each query's best passages."""
    rows: list[tuple[str, str, float]] = []
    documents = passages["document_id"].to_numpy()
    for query_id, row in zip(queries["query_id"], scores, strict=True):
        best = documents[np.argsort(-row, kind="stable")[:100]]
        rows += [(query_id, document, -float(rank)) for rank, document in enumerate(dict.fromkeys(best))]
    ranking = pd.DataFrame(rows, columns=["query_id", "document_id", "score"])
    return float(evaluate_run(ranking, judgments, [MAIN_MEASURE])["value"].mean())


if __name__ == "__main__":
    main()
