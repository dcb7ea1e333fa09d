"""Candidates that let every first stage be judged: the hybrid ones and, behind them, what the others rank among their
best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.measures.query_seconds import in_summary
from models.retrieval.candidates import build_candidates, first_stage_rankings, time_first_stages
from models.retrieval.dense_index import DenseIndex
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.retriever import open_retriever
from models.retrieval.steps import POOLED_CANDIDATES
from models.store.durable_files import digest_json
from models.store.tables import write_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore


Progress = Callable[[int, int], None]


def make_pooled_candidates(
    store: ArtifactStore,
    settings: Settings,
    queries: pd.DataFrame,
    passages: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """The candidates of `queries`, rows (`query_id`, `text`)."""
    inputs = (passages, passage_embeddings, dense_index, lexical_index)
    return POOLED_CANDIDATES.get_or_create(
        store,
        settings,
        partial(pool, queries, *inputs, settings, progress),
        inputs=inputs,
        outside={"queries": digest_json(queries["query_id"].tolist())},
    )


def pool(
    queries: pd.DataFrame,
    passages: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    settings: Settings,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Write pooled.parquet, `evaluation.candidates` of each first stage, and first_stage.parquet, the rankings to the
    greater of that and `index.depth`; return counts and the measured seconds of a query in each first stage."""
    count, depth = settings.evaluation.candidates, settings.index.depth
    retriever = open_retriever(
        passages.path("passages.parquet"),
        embeddings=passage_embeddings.folder,
        dense=dense_index.folder,
        lexical=lexical_index.folder,
        settings=settings.index,
    )
    vectors = retriever.encode(queries["text"].tolist())
    rankings = first_stage_rankings(queries, retriever, max(depth, count), vectors)
    hybrid = build_candidates(queries, retriever, count, progress, vectors)
    others = pd.concat([rankings[name].loc[rankings[name]["rank"] <= count] for name in ("bm25", "dense")])
    dense, lexical = DenseIndex.load(dense_index.folder), LexicalIndex.load(lexical_index.folder)
    table = _with_others(hybrid, others, queries, dense, lexical, vectors)
    write_table(table, folder / "pooled.parquet")
    stages = pd.concat([ranking.assign(system=name) for name, ranking in rankings.items()], ignore_index=True)
    write_table(stages, folder / "first_stage.parquet")
    seconds = time_first_stages(queries, retriever, depth)
    return {"pairs": len(table), **in_summary(seconds)}


def _with_others(
    hybrid: pd.DataFrame,
    others: pd.DataFrame,
    queries: pd.DataFrame,
    dense: DenseIndex,
    lexical: LexicalIndex,
    vectors: NDArray[np.float32],
) -> pd.DataFrame:
    """The hybrid candidates and behind them, with `hybrid` false, those of the other first stages that they lack."""
    columns = ["query_id", "passage_id", "document_id"]
    row_of = {passage_id: row for row, passage_id in enumerate(dense.passage_ids)}
    parts = []
    others_of = {str(query_id): rows for query_id, rows in others.groupby("query_id")}
    hybrid_of = {str(query_id): rows for query_id, rows in hybrid.groupby("query_id")}
    for number, (query_id, text) in enumerate(zip(queries["query_id"], queries["text"], strict=True)):
        given = hybrid_of[query_id] if query_id in hybrid_of else hybrid.iloc[:0]
        more = others_of[query_id] if query_id in others_of else others.iloc[:0]
        more = pd.DataFrame(more, columns=columns).drop_duplicates("passage_id")
        more = more.loc[~more["passage_id"].isin(given["passage_id"])]
        rows = np.array([row_of[passage_id] for passage_id in more["passage_id"]], dtype=np.int64)
        more = more.assign(
            rank=np.arange(len(given) + 1, len(given) + 1 + len(more)),
            retriever_score=0.0,
            dense_score=dense.score(vectors[number : number + 1], rows[None, :])[0].astype(np.float64),
            lexical_score=lexical.score_rows(text, rows).astype(np.float64),
        )
        parts += [given.assign(hybrid=True), more.assign(hybrid=False)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)
