"""Fit the windows of `models.cascade.windows` on the development queries: the least loss of nDCG@10 that a budget
allows.

What windows lose is judged by what the large model believes of all candidates, not by the judgments: nDCG@10 of some
hundred queries moves by luck, since one relevant passage says nothing of the order of the others, while probabilities
tell what every exchange of two passages costs in expectation (docs/decisions/0013).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import inf

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, candidate_inputs, probability
from models.cascade.offline import pairs_per_query, tiered_ranking
from models.cascade.windows import Stopping, best_rows, in_turn
from models.measures.metrics import collapse_to_documents, evaluate_run, mean_values
from models.settings import TiersSettings

_MEASURE = "nDCG@10"
_TOP = 10
_STEPS = 24
"""Windows tried for a model besides none and no limit: the n-th one leaves n steps of equal ratio more pairs."""

_FEWEST = 0.25
"""Pairs of a query that the narrowest window leaves on average, besides the best one."""


@dataclass(frozen=True)
class FittedStopping:
    """The windows, and what they did on the queries that they were fitted on."""

    stopping: Stopping
    ndcg_without: float
    ndcg_with: float
    expected_loss: float
    """Of nDCG@10, by the probabilities of the large model, against no windows."""

    pairs_without: dict[str, float]
    """Mean pairs of a query that each model scores, by model."""

    pairs_with: dict[str, float]

    def summary(self) -> dict[str, float]:
        """The numbers that are watched."""
        pairs = {f"{name}_pairs_per_query": value for name, value in self.pairs_with.items()}
        return {
            "ndcg_at_10_without_stopping": self.ndcg_without,
            "ndcg_at_10_with_stopping": self.ndcg_with,
            "expected_stopping_loss": self.expected_loss,
            **pairs,
        }


def fit_stopping(
    scored: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    compact_cost: float,
) -> FittedStopping:
    """Windows for both models, chosen together, and whether the compact model is asked at all.

    `scored` has the candidates of the development queries with both logits; `compact_cost` is what a pair costs in the
    compact model as a share of what it costs in the large one. Of the windows whose mean cost of a query is within
    `tiers.stopping_budget` (pairs of the large model; 0 is no limit), the cheapest whose expected loss is at most
    `tiers.max_stopping_loss` is taken, or where none is, the one with the least loss. Judgments only say what came of
    it.
    """
    expected = ExpectedOutcomes(scored, calibration, tiers, compact_cost)
    budget = tiers.stopping_budget or inf
    full_cost, full = expected.of(Stopping())
    # Where more candidates are allowed the large model than the compact one, the straight way shows it more of them.
    full = max(full, expected.of(Stopping(through_compact=False))[1])
    chosen, lost = Stopping(), 0.0
    if full_cost > budget or tiers.max_stopping_loss:
        tried = [(*expected.of(stopping), stopping) for stopping in expected.choices()]
        affordable = [one for one in tried if one[0] <= budget] or [min(tried, key=lambda one: one[0])]
        close = [one for one in affordable if full - one[1] <= tiers.max_stopping_loss]
        if close:
            _, value, chosen = min(close, key=lambda one: (one[0], -one[1]))
        else:
            _, value, chosen = min(affordable, key=lambda one: (-one[1], one[0]))
        lost = full - value
    without, with_them = (
        tiered_ranking(scored, replace(calibration, stopping=stopping), tiers) for stopping in (Stopping(), chosen)
    )
    judged = judgments[judgments["query_id"].isin(scored["query_id"])]
    before, after = (
        mean_values(evaluate_run(collapse_to_documents(ranking), judged, [_MEASURE]))[_MEASURE]
        for ranking in (without, with_them)
    )
    return FittedStopping(
        chosen, before, after, lost, pairs_per_query(without, Stopping()), pairs_per_query(with_them, chosen)
    )


class ExpectedOutcomes:
    """What windows cost on the queries of `scored`, and the nDCG@10 that the large model expects of them."""

    def __init__(
        self, scored: pd.DataFrame, calibration: Calibration, tiers: TiersSettings, compact_cost: float
    ) -> None:
        self._queries = [_Query(rows, calibration, tiers) for _, rows in scored.groupby("query_id", sort=True)]
        self._compact_cost = compact_cost

    def of(self, stopping: Stopping) -> tuple[float, float]:
        """Mean cost of a query, in pairs of the large model, and mean expected nDCG@10."""
        found = [query.outcome(stopping) for query in self._queries]
        costs = [self._compact_cost * compact + large for compact, large, _ in found]
        return float(np.mean(costs)), float(np.mean([value for *_, value in found]))

    def choices(self) -> list[Stopping]:
        """All pairs of windows worth trying, and windows for the large model without the compact one."""
        lean, compact = (_windows([getattr(query, tier) for query in self._queries]) for tier in ("lean", "compact"))
        straight = [Stopping(large=window, through_compact=False) for window in lean]
        return [*straight, *(Stopping(*pair) for pair in product(lean, compact))]


class _Query:
    """The candidates of one query, and what `tiered_ranking` makes of them for any windows.

    `lean`, `compact` and `large` are combined logits [n]. Windows only decide how many candidates go on, so each of the
    few outcomes is worked out once.
    """

    def __init__(self, rows: pd.DataFrame, calibration: Calibration, tiers: TiersSettings) -> None:
        inputs = candidate_inputs(rows)
        scorers = calibration.tiers["lean"], calibration.tiers["compact"], calibration.last
        self.lean, self.compact, self.large = (scorer.logits(inputs) for scorer in scorers)
        believed = probability(self.large)
        self._relevant = believed / believed.sum()
        self._ids = rows["passage_id"].tolist()
        self._most = tiers.large_candidates
        self._first = best_rows(self.lean, self._ids, tiers.compact_candidates)
        self._straight = best_rows(self.lean, self._ids, tiers.large_candidates)
        self._second: dict[int, NDArray[np.int64]] = {}
        self._values: dict[tuple[int, int], float] = {}

    def outcome(self, stopping: Stopping) -> tuple[int, int, float]:
        """Pairs of the compact and of the large model, and the expected nDCG@10."""
        if not stopping.through_compact:
            large = _near(self.lean[self._straight], stopping.large)
            return 0, large, self._value(0, self._straight, large)
        compact = _near(self.lean[self._first], stopping.compact)
        if compact not in self._second:
            chosen = self._first[:compact]
            order = best_rows(self.compact[chosen], [self._ids[row] for row in chosen], self._most)
            self._second[compact] = chosen[order]
        second = self._second[compact]
        large = _near(self.compact[second], stopping.large)
        return compact, large, self._value(compact, second, large)

    def _value(self, compact: int, ordered: NDArray[np.int64], large: int) -> float:
        """Expected nDCG@10 where the compact model scored so many of the best by `lean`, the large one of `ordered`."""
        if (compact, large) not in self._values:
            logits, tiers = self.lean.copy(), np.full(len(self.lean), "lean", dtype=object)
            asked = (("compact", self.compact, self._first[:compact]), ("large", self.large, ordered[:large]))
            for tier, known, rows in asked:
                logits[rows], tiers[rows] = known[rows], tier
            top = best_rows(in_turn(logits, tiers.tolist()), self._ids, _TOP)
            self._values[compact, large] = float(self._relevant[top] @ (1 / np.log2(np.arange(2, len(top) + 2))))
        return self._values[compact, large]


def _near(descending: NDArray[np.float64], window: float) -> int:
    """How many logits are within the window of the first; none where that one stands alone."""
    if window == inf:
        return len(descending)
    count = int((descending >= descending[0] - window).sum()) if len(descending) else 0
    return count if count > 1 else 0


def _windows(logits: list[NDArray[np.float64]]) -> list[float]:
    """Windows to try: none, quantiles of how far candidates are behind the best of their query, and no limit.

    The quantiles are close where windows are narrow, however many candidates a query has.
    """
    behind = np.concatenate([np.zeros(0), *(values.max(initial=-inf) - values for values in logits)])
    behind = behind[behind > 0]
    if not len(behind):
        return [0.0, inf]
    narrowest = min(_FEWEST * len(logits) / len(behind), 1.0)
    return [0.0, *np.quantile(behind, np.geomspace(narrowest, 1, _STEPS)).tolist(), inf]
