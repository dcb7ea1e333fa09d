"""An evaluation with what explains it: slices, and the rerankers behind each first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from models.cascade.calibration import Calibration
from models.evaluation.first_stage_gains import StageGain, stage_gains
from models.evaluation.query_kinds import KindOfQuery, pseudo_only, queries_by_kind
from models.evaluation.report import EvaluationReport, evaluate_systems
from models.evaluation.slices import Slice, query_facts, slice_gains
from models.settings import EvaluationSettings, TiersSettings

JUDGED = "tiered"
"""The system whose slices are looked at: what is served."""


@dataclass(frozen=True)
class Assessment:
    """All systems on one evaluation set: the numbers, the rankings behind them, and where they come from."""

    report: EvaluationReport
    rankings: Mapping[str, pd.DataFrame]
    slices: Sequence[Slice]
    by_first_stage: Sequence[StageGain]
    by_kind: Sequence[KindOfQuery] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values: those of the report, the slices and first stages, and the means by kind of query."""
        return {
            **self.report.to_dict(),
            "slices": [part.to_dict() for part in self.slices],
            "by_first_stage": [stage.to_dict() for stage in self.by_first_stage],
            "by_kind": [kind.to_dict() for kind in self.by_kind],
            "pseudo_only": pseudo_only(self.by_kind),
        }


def assess(
    rankings: Mapping[str, pd.DataFrame],
    first_stages: pd.DataFrame,
    scored: pd.DataFrame,
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
    passages: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    seconds_per_query: Mapping[str, float],
    depth: int,
    settings: EvaluationSettings,
    imported: Sequence[str] = (),
) -> Assessment:
    """Evaluate `rankings` (see `models.evaluation.report.evaluate_systems`), `tiered` among them, and explain the
    result.

    `first_stages` are the first-stage rankings with a column `system`, `scored` the candidates with the logits of
    each model, `depth` how many candidates were reranked.
    """
    report = evaluate_systems(rankings, judgments, seconds_per_query, settings, imported)
    texts = dict(zip(queries["query_id"], queries["text"], strict=True))
    slices = slice_gains(
        report.per_query,
        query_facts(queries, judgments, passages),
        texts,
        JUDGED,
        report.best_without_model,
        settings,
    )
    stages = stage_gains(first_stages, scored, judgments, calibration, tiers, depth, settings)
    return Assessment(report, rankings, slices, stages, queries_by_kind(report.per_query, queries))
