# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Fit the windows of `models.stopping` on the development queries: as narrow as a set loss of nDCG@10 allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.calibration import Calibration, candidate_inputs
from models.metrics import collapse_to_documents, evaluate_run
from models.scoring import pairs_per_query, tiered_ranking
from models.settings import TiersSettings
from models.stopping import Stopping

_MEASURE = "nDCG@10"
_STEPS = 16
"""Windows tried for a model, at equal shares of the pairs that they leave."""


@dataclass(frozen=True)
class FittedStopping:
    """The windows, and what they did on the queries that they were fitted on."""

    stopping: Stopping
    ndcg_without: float
    ndcg_with: float
    pairs_without: dict[str, float]
    """Mean pairs of a query that each model scores, by model."""

    pairs_with: dict[str, float]

    def summary(self) -> dict[str, float]:
        """The numbers that are watched."""
        pairs = {f"{name}_pairs_per_query": value for name, value in self.pairs_with.items()}
        return {"ndcg_at_10_without_stopping": self.ndcg_without, "ndcg_at_10_with_stopping": self.ndcg_with, **pairs}


def fit_stopping(
    scored: pd.DataFrame, judgments: pd.DataFrame, calibration: Calibration, tiers: TiersSettings
) -> FittedStopping:
    """Windows for both models, the large one's first since its pairs cost most.

    `scored` has the candidates of the development queries with both logits. A window is taken when the nDCG@10 that
    queries lose by it, over all queries, is at most half of `tiers.max_stopping_loss`, so both together stay within
    it; at 0 there are none. What other queries win is not set off: on so few queries that is luck, and narrower windows
    would be taken than hold on others.
    """
    judged = judgments[judgments["query_id"].isin(scored["query_id"])]

    def outcome(stopping: Stopping) -> tuple[NDArray[np.float64], pd.DataFrame]:
        ranking = tiered_ranking(scored, replace(calibration, stopping=stopping), tiers)
        return evaluate_run(collapse_to_documents(ranking), judged, [_MEASURE])["value"].to_numpy(), ranking

    chosen = Stopping()
    everything, ranking = outcome(chosen)
    before = pairs_per_query(ranking)
    best = everything
    for tier in ("large", "compact") if tiers.max_stopping_loss else ():
        for window in _windows(scored, calibration, tier):
            tried = replace(chosen, **{tier: window})
            values, _ = outcome(tried)
            if np.maximum(best - values, 0).mean() <= tiers.max_stopping_loss / 2:
                chosen, best = tried, values
                break
    kept, ranking = outcome(chosen)
    return FittedStopping(chosen, float(everything.mean()), float(kept.mean()), before, pairs_per_query(ranking))


def _windows(scored: pd.DataFrame, calibration: Calibration, tier: str) -> NDArray[np.float64]:
    """Windows to try, the narrowest first: quantiles of how far candidates are behind the best."""
    logits = calibration.tiers["lean" if tier == "compact" else "compact"].logits(candidate_inputs(scored))
    table = pd.DataFrame({"query_id": scored["query_id"], "logit": logits})
    behind = table.groupby("query_id")["logit"].transform("max") - table["logit"]
    behind = behind[behind > 0].to_numpy()
    return np.quantile(behind, np.linspace(0, 1, _STEPS, endpoint=False)) if len(behind) else np.empty(0)
