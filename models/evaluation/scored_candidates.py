"""Candidates scored by both cross-encoders, as an artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.cross_encoder.candidate_scores import PairScorer, score_candidates
from models.cross_encoder.engines import load_engine
from models.cross_encoder.flops import relative_cost
from models.cross_encoder.pairwise import Progress
from models.evaluation.steps import SCORED_CANDIDATES
from models.store.tables import write_table

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore

ReadTable = Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class StoredModels:
    """The folders of both models and of what computes their scores; they are loaded when they are first asked for."""

    compact: Path
    large: Path
    engines: Path
    max_tokens: int
    device: str = "auto"
    threads: int = 0

    @cached_property
    def scorers(self) -> tuple[PairScorer, PairScorer]:
        """The compact and the large model."""
        compact, large = (
            load_engine(self.engines, folder, size, self.max_tokens, device=self.device, threads=self.threads)
            for size, folder in (("compact", self.compact), ("large", self.large))
        )
        return compact, large


def make_scored_candidates(
    store: ArtifactStore,
    settings: Settings,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    large_reranker: Artifact,
    compact_reranker: Artifact,
    scoring_engines: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """The candidates of the evaluation queries with the logits of both models."""
    models = StoredModels(
        compact_reranker.folder,
        large_reranker.folder,
        scoring_engines.folder,
        settings.training.max_tokens,
        settings.training.device,
        settings.engine.threads,
    )
    return SCORED_CANDIDATES.get_or_create(
        store,
        settings,
        partial(
            score,
            partial(candidates.read_table, "candidates.parquet"),
            evaluation_set.read_table("queries.parquet"),
            partial(passages.read_table, "passages.parquet", ["passage_id", "title", "text"]),
            models,
            progress,
        ),
        inputs=(evaluation_set, passages, candidates, large_reranker, compact_reranker, scoring_engines),
    )


def score(
    read_candidates: ReadTable,
    queries: pd.DataFrame,
    read_passages: ReadTable,
    models: StoredModels,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Write scored.parquet: the candidates of `queries` with both models' logits.

    Return the count of pairs, the seconds that one took in each model, and what the longest costs in the compact model
    as a share of the large one's.
    """
    scored = score_candidates(read_candidates(), queries, read_passages(), *models.scorers, progress)
    write_table(scored.table, folder / "scored.parquet")
    return {
        "dagster/row_count": len(scored.table),
        "compact_cost": relative_cost(models.compact, models.large, models.max_tokens),
        **{f"seconds_per_pair_{name}": seconds for name, seconds in scored.seconds_per_pair.items()},
    }
