"""Candidates scored by the cross-encoders of all tiers, as an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.contracts.tiers import MODEL_TIERS
from models.cross_encoder.candidate_scores import PairScorer, score_candidates
from models.cross_encoder.engines import load_engines, model_folders
from models.cross_encoder.flops import relative_costs
from models.cross_encoder.pairwise import Progress
from models.evaluation.steps import SCORED_CANDIDATES
from models.settings import chosen
from models.store.tables import write_table

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore

ReadTable = Callable[[], pd.DataFrame]

_COST, _SECONDS = "relative_pair_cost_{}", "seconds_per_pair_{}"


@dataclass(frozen=True)
class StoredModels:
    """The folders of the models, by tier, and of what computes their scores; they are loaded when they are first asked
    for."""

    folders: Mapping[str, Path]
    engines: Path
    max_tokens: int
    device: str = "auto"
    threads: int = 0

    @classmethod
    def of_bundle(cls, bundle: Path, max_tokens: int, threads: int = 0) -> StoredModels:
        """The models of a bundle."""
        return cls(model_folders(bundle), bundle / "engines", max_tokens, threads=threads)

    @cached_property
    def scorers(self) -> Mapping[str, PairScorer]:
        """The models by tier."""
        return load_engines(self.engines, self.folders, self.max_tokens, device=self.device, threads=self.threads)


def make_scored_candidates(
    store: ArtifactStore,
    settings: Settings,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    rerankers: Mapping[str, Artifact],
    scoring_engines: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """The candidates of the evaluation queries with the logits of all models; `rerankers` are these by tier."""
    models = StoredModels(
        {tier: artifact.folder for tier, artifact in rerankers.items()},
        scoring_engines.folder,
        chosen(settings.training.max_tokens),
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
        inputs=(evaluation_set, passages, candidates, *rerankers.values(), scoring_engines),
    )


def score(
    read_candidates: ReadTable,
    queries: pd.DataFrame,
    read_passages: ReadTable,
    models: StoredModels,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Write scored.parquet: the candidates of `queries` with the logits of all models.

    Return the count of candidates, and of each model the seconds that a pair took and what the longest costs as a share
    of that in the last model.
    """
    scored = score_candidates(read_candidates(), queries, read_passages(), models.scorers, progress)
    write_table(scored.table, folder / "scored.parquet")
    return {
        "dagster/row_count": len(scored.table),
        **{_COST.format(name): cost for name, cost in relative_costs(models.folders, models.max_tokens).items()},
        **{_SECONDS.format(name): seconds for name, seconds in scored.seconds_per_pair.items()},
    }


def pair_costs(scored_candidates: Artifact) -> dict[str, float]:
    """What the longest pair costs in each model, by tier, as a share of that in the last one."""
    return _by_tier(scored_candidates, _COST)


def seconds_per_pair(scored_candidates: Artifact) -> dict[str, float]:
    """Seconds that a pair took in each model, by tier."""
    return _by_tier(scored_candidates, _SECONDS)


def _by_tier(scored_candidates: Artifact, entry: str) -> dict[str, float]:
    """An entry of the summary, for each model that has scored."""
    summary, keys = scored_candidates.summary, {tier.name: entry.format(tier.name) for tier in MODEL_TIERS}
    return {name: float(summary[key]) for name, key in keys.items() if key in summary}
