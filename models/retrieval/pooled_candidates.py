"""Candidates that let every first stage be judged: those that are reranked and, behind them, what the other first
stages rank among their best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.measures.query_seconds import in_summary
from models.retrieval.candidates import build_candidates, first_stage_rankings, time_first_stages
from models.retrieval.retriever import open_retriever
from models.retrieval.steps import POOLED_CANDIDATES
from models.settings import chosen
from models.store.durable_files import digest_json
from models.store.tables import write_table

if TYPE_CHECKING:
    from models.retrieval.fusion import FirstStage
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
    first_stage: FirstStage,
    progress: Progress | None = None,
) -> Artifact:
    """The candidates of `queries`, rows (`query_id`, `text`)."""
    inputs = (passages, passage_embeddings, dense_index, lexical_index)
    return POOLED_CANDIDATES.get_or_create(
        store,
        settings,
        partial(pool, queries, *inputs, first_stage, settings, progress),
        inputs=inputs,
        outside={
            "queries": digest_json(queries["query_id"].tolist()),
            "first_stage": digest_json(first_stage.to_dict()),
        },
    )


def pool(
    queries: pd.DataFrame,
    passages: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    first_stage: FirstStage,
    settings: Settings,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Write pooled.parquet, `evaluation.candidates` of each first stage, `given` saying which the rerankers are given,
    and first_stage.parquet, the rankings to the greater of that and `index.depth`; return counts and the measured
    seconds of a query in each first stage."""
    count = chosen(settings.evaluation.candidates)
    depth = max(settings.index.depth, count)
    retriever = open_retriever(passages, passage_embeddings, dense_index, lexical_index, settings.index, first_stage)
    vectors = retriever.encode(queries["text"].tolist())
    rankings = first_stage_rankings(queries, retriever, depth, vectors)
    stages = pd.concat([ranking.assign(system=name) for name, ranking in rankings.items()], ignore_index=True)
    write_table(stages, folder / "first_stage.parquet")
    brought = build_candidates(queries, retriever, 2 * depth, progress, vectors, depth=depth)
    key = ["query_id", "passage_id"]
    among_best = pd.MultiIndex.from_frame(stages.loc[stages["rank"] <= count, key])
    table = brought[pd.MultiIndex.from_frame(brought[key]).isin(among_best)]
    table = table.assign(given=table["rank"] <= count).reset_index(drop=True)
    write_table(table, folder / "pooled.parquet")
    seconds = time_first_stages(queries, retriever, settings.index.depth)
    return {"pairs": len(table), **in_summary(seconds)}
