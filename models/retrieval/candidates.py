"""First-stage results as tables: the candidates that are reranked, and the rankings that a reranker must beat."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from models.contracts.tiers import LEAN
from models.measures.query_seconds import in_summary
from models.retrieval.embedding import encoder_version
from models.retrieval.fusion import FirstStage, read_first_stage
from models.retrieval.retriever import HybridRetriever, Retrieval, open_retriever
from models.retrieval.steps import CANDIDATES
from models.settings import chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore
    from models.store.steps import Lookup

Made = TypeVar("Made")

_ENCODING = "encoding"
"""Beside the first stages, what is timed: embedding a query."""
(_ENCODING_SECONDS,) = in_summary({_ENCODING: 0.0})

_TIMED = 64
"""Queries on which the time of one is measured."""

_QUERY_HASHES = "query_hashes.npy"
_QUERY_VECTORS = "query_vectors.npy"


def make_candidates(
    store: ArtifactStore,
    settings: Settings,
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    first_stage: Artifact,
    progress: Callable[[int, int], None] | None = None,
) -> Artifact:
    """The candidates of the training and evaluation queries."""
    inputs = (passages, queries, evaluation_set, passage_embeddings, dense_index, lexical_index, first_stage)
    outside = {"encoder": encoder_version(passage_embeddings)}
    previous = partial(CANDIDATES.previous, store, {**CANDIDATES.values(settings), **outside})
    build = partial(retrieve_candidates, *inputs, settings, previous, progress)
    return CANDIDATES.get_or_create(store, settings, build, inputs=inputs, outside=outside)


def retrieve_candidates(
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    first_stage: Artifact,
    settings: Settings,
    previous: Lookup,
    progress: Callable[[int, int], None] | None,
    folder: Path,
) -> dict[str, float | int]:
    """`build_all_candidates` with these indexes into `folder`, taking over query vectors from the artifact before and
    from the first stage."""
    before = previous()
    retriever = open_retriever(passages, passage_embeddings, dense_index, lexical_index, settings.index)
    return build_all_candidates(
        queries.read_table("queries.parquet"),
        evaluation_set.read_table("queries.parquet"),
        retriever,
        folder,
        candidates=chosen(settings.evaluation.candidates),
        depth=settings.index.depth,
        max_train_queries=settings.training.max_queries,
        first_stage=read_first_stage(first_stage.folder),
        known=[first_stage.folder, *([before.folder] if before else [])],
        encoding_seconds=before and before.summary.get(_ENCODING_SECONDS),
        progress=progress,
    )


def build_candidates(
    queries: pd.DataFrame,
    retriever: HybridRetriever,
    top_k: int,
    progress: Callable[[int, int], None] | None = None,
    vectors: NDArray[np.float32] | None = None,
    depth: int | None = None,
) -> pd.DataFrame:
    """Table of `contracts.Candidates`: the best `top_k` of each query, `rank` from 1 in the retriever's order.

    `vectors` [n, d] are those of the queries, where they are known; `depth` as of `HybridRetriever.retrieve_batch`.
    """
    texts = queries["text"].tolist()
    retrievals = retriever.retrieve_batch(texts, top_k, progress=progress, vectors=vectors, depth=depth)
    return _candidates(queries, retriever, retrievals, top_k)


def _candidates(
    queries: pd.DataFrame, retriever: HybridRetriever, retrievals: Sequence[Retrieval], top_k: int
) -> pd.DataFrame:
    table = _ranking(queries, retriever, [retrieval.rows[:top_k] for retrieval in retrievals])
    return table.assign(
        retriever_score=_joined([retrieval.retriever_scores[:top_k] for retrieval in retrievals]),
        dense_score=_joined([retrieval.dense_scores[:top_k] for retrieval in retrievals]),
        lexical_score=_joined([retrieval.lexical_scores[:top_k] for retrieval in retrievals]),
    )


def _training_candidates(
    queries: pd.DataFrame, retriever: HybridRetriever, retrievals: Sequence[Retrieval], top_k: int
) -> pd.DataFrame:
    """Table of `contracts.TrainingCandidates`: candidates with their ranks in both searches, 0 where one missed it."""
    table = _candidates(queries, retriever, retrievals, top_k)
    ranks: dict[str, list[int]] = {"dense_rank": [], "lexical_rank": []}
    for retrieval in retrievals:
        for name, (rows, _) in (("dense_rank", retrieval.dense), ("lexical_rank", retrieval.lexical)):
            rank_of = {row: rank for rank, row in enumerate(rows.tolist(), 1)}
            ranks[name] += [rank_of.get(row, 0) for row in retrieval.rows[:top_k].tolist()]
    return table.assign(**{name: np.array(values, dtype=np.int64) for name, values in ranks.items()})


def first_stage_rankings(
    queries: pd.DataFrame, retriever: HybridRetriever, depth: int, vectors: NDArray[np.float32] | None = None
) -> Mapping[str, pd.DataFrame]:
    """The rankings of `FIRST_STAGES`, and `lean`, the retriever's own order of what both searches bring, as tables
    (query_id, passage_id, document_id, rank, score).

    At most `depth` passages of a query; BM25 has fewer where fewer passages share a word with the query. `vectors`
    [n, d] are those of the queries, where they are known.
    """
    retrievals = retriever.retrieve_batch(queries["text"].tolist(), depth, vectors=vectors)
    return _rankings(queries, retriever, retrievals, depth)


def _rankings(
    queries: pd.DataFrame, retriever: HybridRetriever, retrievals: Sequence[Retrieval], depth: int
) -> Mapping[str, pd.DataFrame]:
    stages = {
        "bm25": [retrieval.lexical for retrieval in retrievals],
        "dense": [retrieval.dense for retrieval in retrievals],
        "hybrid": [retriever.hybrid(retrieval) for retrieval in retrievals],
        LEAN.name: [(retrieval.rows, retrieval.retriever_scores) for retrieval in retrievals],
    }
    return {
        name: _ranking(queries, retriever, [rows[:depth] for rows, _ in lists]).assign(
            score=_joined([scores[:depth] for _, scores in lists])
        )
        for name, lists in stages.items()
    }


def time_first_stages(
    queries: pd.DataFrame,
    retriever: HybridRetriever,
    depth: int,
    known: tuple[NDArray[np.float32], float] | None = None,
) -> dict[str, float]:
    """Measured seconds of one query in `bm25`, `dense` and `hybrid`, each run by itself over a block of `queries`;
    `hybrid` is both searches and the retriever's order, whichever that is.

    The latter two include embedding the query, whose seconds are given as `encoding` too. A block is enough, and
    embedding it anew is a good part of what a refresh costs; `known` are the vectors [n, d] of all `queries` and the
    seconds of embedding one, as this encoder was measured before.
    """
    from models.corpus.splits import sample_by_hash

    sample = sample_by_hash(queries.reset_index(drop=True), _TIMED)
    texts = sample["text"].tolist()
    if known is None:
        vectors, encoding = _timed(lambda: retriever.encode(texts), len(texts))
    else:
        vectors, encoding = known[0][sample.index], known[1]
    _, by_words = _timed(lambda: retriever.search_lexical(texts, depth), len(texts))
    _, by_meaning = _timed(lambda: retriever.search_dense(vectors, depth), len(texts))
    _, by_both = _timed(lambda: retriever.retrieve_batch(texts, depth, vectors=vectors), len(texts))
    return {"encoding": encoding, "bm25": by_words, "dense": encoding + by_meaning, "hybrid": encoding + by_both}


def _timed(work: Callable[[], Made], count: int) -> tuple[Made, float]:
    """What `work` returns, and its seconds for each of `count`."""
    started = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - started) / max(count, 1)


def _ranking(queries: pd.DataFrame, retriever: HybridRetriever, rows: Sequence[NDArray[np.int64]]) -> pd.DataFrame:
    counts = [len(ranked) for ranked in rows]
    # Many queries find the same passages, whose ids are read once each.
    unique, places = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *rows]), return_inverse=True)
    return pd.DataFrame(
        {
            "query_id": pd.Series(np.repeat(queries["query_id"].to_numpy(dtype=object), counts), dtype="str"),
            "passage_id": np.array(retriever.passage_ids.take(unique), dtype=object)[places],
            "document_id": np.array(retriever.document_ids.take(unique).to_pylist(), dtype=object)[places],
            "rank": np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(1, count + 1) for count in counts)]),
        }
    ).astype({"passage_id": "str", "document_id": "str"})


def _joined(columns: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    return np.concatenate([np.empty(0, dtype=np.float64), *columns]).astype(np.float64)


def build_all_candidates(
    queries: pd.DataFrame,
    evaluation_queries: pd.DataFrame,
    retriever: HybridRetriever,
    folder: Path,
    *,
    first_stage: FirstStage | None = None,
    candidates: int,
    depth: int,
    max_train_queries: int,
    known: Sequence[Path] = (),
    encoding_seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | int]:
    """Write candidates.parquet (evaluation queries), training_candidates.parquet and first_stage.parquet to `folder`.

    The evaluation queries have the best `candidates` by `first_stage`, by default the retriever's own; the training
    sample has the best `depth` of the `max_train_queries` training queries with the smallest hash of their id that are
    not evaluated, in the retriever's own order, which no judgment has decided. first_stage.parquet has the rankings of
    the evaluation queries with a column `system`. The vectors of the queries are kept beside them, and taken over from
    the folders in `known`, whose vectors this encoder made.
    Returns counts and, as `seconds_per_query_<system>`, the measured seconds of one query in each system; those of
    embedding one are `encoding_seconds`, as they were measured before, unless a query is embedded here.
    """
    from models.corpus.splits import sample_by_hash
    from models.store.tables import write_table

    held_out = queries["query_id"].isin(evaluation_queries["query_id"])
    train = sample_by_hash(queries.loc[(queries["split"] == "train") & ~held_out], max_train_queries)
    wanted = pd.concat([train, evaluation_queries]).sort_values("query_id", ignore_index=True)
    vectors, embedded = query_vectors(wanted["text"].tolist(), retriever, known, folder)
    row_of = {query_id: row for row, query_id in enumerate(wanted["query_id"])}
    trained, evaluated = (
        vectors[[row_of[query_id] for query_id in of_split["query_id"]]] for of_split in (train, evaluation_queries)
    )
    retrievals = retriever.retrieve_batch(train["text"].tolist(), depth, progress=progress, vectors=trained)
    for_training = _training_candidates(train, retriever, retrievals, depth)
    write_table(for_training, folder / "training_candidates.parquet")
    served = retriever if first_stage is None else retriever.ordered_by(first_stage)
    most = max(candidates, depth)
    retrievals = served.retrieve_batch(evaluation_queries["text"].tolist(), most, vectors=evaluated)
    table = _candidates(evaluation_queries, retriever, retrievals, candidates)
    write_table(table, folder / "candidates.parquet")
    rankings = _rankings(evaluation_queries, retriever, retrievals, depth)
    measured = None if embedded or encoding_seconds is None else (evaluated, encoding_seconds)
    seconds = time_first_stages(evaluation_queries, served, depth, measured)
    stages = pd.concat([ranking.assign(system=name) for name, ranking in rankings.items()], ignore_index=True)
    write_table(stages, folder / "first_stage.parquet")
    return {
        "dagster/row_count": len(table),
        "training_candidates": len(for_training),
        "queries": len(wanted),
        "queries_embedded": embedded,
        **in_summary(seconds),
    }


def query_hash(text: str) -> str:
    """The name of a query's vector: SHA-256 (hex) of its text."""
    return hashlib.sha256(text.encode()).hexdigest()


def stored_query_vectors(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The vectors of the queries that `query_vectors` wrote to `folder`, by `query_hash`."""
    hashes = np.load(folder / _QUERY_HASHES, allow_pickle=False).astype(str).tolist()
    return dict(zip(hashes, np.load(folder / _QUERY_VECTORS, allow_pickle=False), strict=True))


def query_vectors(
    texts: Sequence[str], retriever: HybridRetriever, stored: Sequence[Path], folder: Path
) -> tuple[NDArray[np.float32], int]:
    """Vectors [n, d] of the queries, also written to `folder`, and how many of them no folder in `stored` had."""
    hashes = [query_hash(text) for text in texts]
    known = {name: vector for other in stored for name, vector in stored_query_vectors(other).items()}
    new = {name: text for name, text in zip(hashes, texts, strict=True) if name not in known}
    embedded = retriever.encode(list(new.values()))
    known.update(zip(new, embedded, strict=True))
    vectors = np.array([known[name] for name in hashes], dtype=np.float32).reshape(len(hashes), embedded.shape[1])
    np.save(folder / _QUERY_HASHES, np.array(hashes, dtype="S64"), allow_pickle=False)
    np.save(folder / _QUERY_VECTORS, vectors, allow_pickle=False)
    return vectors, len(new)
