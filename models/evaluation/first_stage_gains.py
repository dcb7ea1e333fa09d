"""The rerankers behind each first stage: one that lifts a weak retriever may still hurt a better one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from models.cascade.calibration import Calibration
from models.cascade.offline import rerank
from models.contracts.tiers import FIRST_STAGES, LEAN, MODEL_TIERS
from models.evaluation.report import Comparison, compare
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run
from models.measures.significance import holm
from models.settings import EvaluationSettings, TiersSettings

BEHIND = (*(tier.name for tier in MODEL_TIERS), "tiered")


@dataclass(frozen=True, slots=True)
class StageGain:
    """What each reranker of `BEHIND` gains over one first stage when it orders that stage's own best `depth` passages.

    `coverage` is the share of those passages that have scores. The others keep the places that the stage gave them, so
    below 1 the gains are of what was reranked, not of what could be.
    """

    stage: str
    depth: int
    coverage: float
    gains: Mapping[str, Comparison]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def stage_gains(
    first_stages: pd.DataFrame,
    scored: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    depth: int,
    settings: EvaluationSettings,
) -> list[StageGain]:
    """Rerank the best `depth` passages of each first stage that `first_stages` has under `system`; `lean` is the one
    whose candidates are reranked in serving.

    `scored` has the logits and first-stage scores of the passages (see `models.cascade.offline.rerank`), for any of
    them. The p values are corrected for all of these comparisons together (Holm).
    """
    present = [name for name in (*FIRST_STAGES, LEAN.name) if (first_stages["system"] == name).any()]
    stages = [
        _stage_gain(
            name, first_stages[first_stages["system"] == name], scored, judgments, calibration, tiers, depth, settings
        )
        for name in present
    ]
    corrected = iter(holm([gain.p_value for stage in stages for gain in stage.gains.values()]).tolist())
    return [
        replace(stage, gains={name: replace(gain, p_corrected=next(corrected)) for name, gain in stage.gains.items()})
        for stage in stages
    ]


def _stage_gain(
    name: str,
    stage: pd.DataFrame,
    scored: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    depth: int,
    settings: EvaluationSettings,
) -> StageGain:
    key = ["query_id", "passage_id"]
    stage = stage.sort_values(["query_id", "rank"], ignore_index=True).drop(columns="system")
    known = pd.MultiIndex.from_frame(scored[key])
    inside = (stage["rank"] <= depth).to_numpy()
    covered = inside & pd.MultiIndex.from_frame(stage[key]).isin(known)
    given = scored[known.isin(pd.MultiIndex.from_frame(stage.loc[covered, key]))]
    rankings = {"stage": stage}
    if covered.any():
        for system, ranking in rerank(given, calibration, tiers).items():
            if system in BEHIND:
                rankings[system] = _in_place(stage, covered, ranking)
    tables = [_measured(system, ranking, judgments) for system, ranking in rankings.items()]
    before = tables[0].assign(system="reranked")
    gains = {
        system: compare(
            table.assign(system="reranked"), before, "reranked", settings=settings, candidate=system, baseline=name
        )
        for system, table in zip(list(rankings)[1:], tables[1:], strict=True)
    }
    return StageGain(name, depth, float(covered.sum() / max(inside.sum(), 1)), gains)


def _in_place(stage: pd.DataFrame, covered: np.ndarray, ranking: pd.DataFrame) -> pd.DataFrame:
    """The stage with the covered passages in the order of `ranking`, in the places that they hold together."""
    ordered = ranking.sort_values(["query_id", "rank"])
    changed = stage.copy()
    for column in ("passage_id", "document_id"):
        values = changed[column].to_numpy(dtype=object, copy=True)
        values[covered] = ordered[column].to_numpy(dtype=object)
        changed[column] = values
    return changed


def _measured(system: str, ranking: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    return evaluate_run(collapse_to_documents(ranking), judgments, [MAIN_MEASURE]).assign(system=system)
