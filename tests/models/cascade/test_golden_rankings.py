"""Rankings, service and windows are those that the three walks gave that `models.cascade.cascade.walk` replaced.

golden_rankings.json was written by them (commit 997340b) on candidates of the tests' handbook that two trained models
had scored. In two of its queries scores are rounded until many tie, and budgets leave pairs of the service unscored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.cascade.calibration import Calibration
from models.cascade.offline import tiered_ranking
from models.cascade.window_fitting import fit_early_exit
from models.cascade.windows import EarlyExit
from models.serving.batching import Batcher, CostModel
from models.serving.tiered_reranker import TieredReranker
from models.settings import TiersSettings
from tests.models.serving.test_tiered_reranker import Clock, Engine

GOLDEN: Mapping[str, Any] = json.loads((Path(__file__).parent / "golden_rankings.json").read_text(encoding="utf-8"))
CANDIDATES, JUDGMENTS = (
    pd.DataFrame(GOLDEN[name], columns=GOLDEN["columns"][name]) for name in ("candidates", "judgments")
)
LETTERS = {"large": "L", "compact": "C", "lean": "l"}


def calibration_of(case: Mapping[str, Any]) -> Calibration:
    return Calibration.from_dict({**GOLDEN["calibration"], "early_exit": case["early_exit"]})


def tiers_of(case: Mapping[str, Any]) -> TiersSettings:
    compact, large = case["limits"]
    return TiersSettings(budget_ms=1e9, reserve_ms=0.001, compact_candidates=compact, large_candidates=large)


def written(passage_ids: Sequence[str | None], tiers: Sequence[str]) -> str:
    return " ".join(f"{name}{LETTERS[tier]}" for name, tier in zip(passage_ids, tiers, strict=True))


@pytest.mark.parametrize("case", GOLDEN["offline"])
def test_offline_rankings_are_as_before(case: Mapping[str, Any]) -> None:
    rankings = dict(iter(tiered_ranking(CANDIDATES, calibration_of(case), tiers_of(case)).groupby("query_id")))
    assert {
        query_id: written(rows["passage_id"].tolist(), rows["tier"].tolist()) for query_id, rows in rankings.items()
    } == case["rankings"]
    for query_id, logits in case.get("logits", {}).items():
        assert rankings[query_id]["score"].tolist() == pytest.approx(logits, abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["service"])
def test_the_service_ranks_as_before_at_any_budget(case: Mapping[str, Any]) -> None:
    for query_id, rows in CANDIDATES.groupby("query_id"):
        clock = Clock()
        engines = {
            "compact": Scripted(clock, rows["compact_logit"].tolist(), 1.0),
            "large": Scripted(clock, rows["large_logit"].tolist(), 2.0),
        }
        costs = {"compact": CostModel(1.0), "large": CostModel(2.0)}
        batcher = Batcher(engines, costs, batch_tokens=12, clock=clock)
        ids = rows["passage_id"].tolist()
        ranking = TieredReranker(batcher, calibration_of(case), tiers_of(case)).rank(
            "q",
            [f"{row} w" for row in range(len(rows))],
            ids,
            rows["dense_score"].to_numpy(),
            rows["lexical_score"].to_numpy(),
            np.zeros(len(rows)),
            case["budget_ms"],
            ids,
        )
        batcher.close()
        items = ranking.items
        assert written([i.passage_id for i in items], [i.tier for i in items]) == case["rankings"][query_id]
        assert ranking.degraded_reason == case["reasons"][query_id]


@pytest.mark.parametrize("case", GOLDEN["fitted"])
def test_windows_are_fitted_as_before(case: Mapping[str, Any]) -> None:
    settings = TiersSettings(
        compact_candidates=12,
        large_candidates=8,
        early_exit_budget=case["budget"],
        max_early_exit_loss=case["loss"],
    )
    calibration = calibration_of({"early_exit": EarlyExit().to_dict()})
    fitted = fit_early_exit(
        CANDIDATES, JUDGMENTS, calibration, settings, {"compact": case["compact_cost"], "large": 1.0}
    )
    assert fitted.early_exit.skipped == set(case["early_exit"]["skipped"])
    assert fitted.early_exit.windows == pytest.approx(case["early_exit"]["windows"])
    assert fitted.expected_loss == pytest.approx(case["expected_loss"])
    assert fitted.pairs_with == pytest.approx(case["pairs_with"])
    assert [fitted.ndcg_without, fitted.ndcg_with] == pytest.approx(case["ndcg"])


class Scripted(Engine):
    """Takes a clock's time, and gives the row of `logits` that a text names."""

    def __init__(self, clock: Clock, logits: Sequence[float], ms_per_token: float) -> None:
        super().__init__(clock, ms_per_token=ms_per_token)
        self.logits = logits

    def logits_of(self, encoded: Sequence[Any], batch_size: int = 32) -> np.ndarray:
        super().logits_of(encoded, batch_size)
        return np.array([self.logits[int(pair.text.split()[0])] for pair in encoded])
