"""Fit the windows of early exits on the development queries: the least loss of nDCG@10 that a budget allows.

What windows lose is judged by what the last model believes of all candidates, not by the judgments: nDCG@10 of some
hundred queries moves by luck, since one relevant passage says nothing of the order of the others, while probabilities
tell what every exchange of two passages costs in expectation (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from math import inf

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, candidate_inputs, probability
from models.cascade.cascade import Standing, best_first, final_scores, tie_ranks, walk
from models.cascade.offline import pairs_per_query, tiered_ranking
from models.cascade.windows import EarlyExit
from models.contracts.tiers import LAST, LEAN, TierSpec, candidate_limits
from models.measures.metrics import collapse_to_documents, evaluate_run, mean_values
from models.settings import TiersSettings

_MEASURE = "nDCG@10"
_TOP = 10
_STEPS = 24
"""Windows tried for a model besides none and no limit: the n-th one leaves n steps of equal ratio more pairs."""

_MOST_CHOICES = (_STEPS + 2) ** 2
"""Combinations of windows tried for one chain of models; of more than two models, fewer windows each are tried."""

_FEWEST = 0.25
"""Pairs of a query that the narrowest window leaves on average, besides the best one."""


@dataclass(frozen=True)
class FittedEarlyExit:
    """The windows, and what they did on the queries that they were fitted on.

    Attributes:
        early_exit: The windows, and which models are skipped.
        ndcg_without: nDCG@10 by the judgments without windows.
        ndcg_with: The same with them.
        expected_loss: Of nDCG@10, by the probabilities of the last model, against no windows.
        pairs_without: Mean pairs of a query that each model scores without windows, by tier.
        pairs_with: The same with them.
    """

    early_exit: EarlyExit
    ndcg_without: float
    ndcg_with: float
    expected_loss: float
    pairs_without: dict[str, float]
    pairs_with: dict[str, float]

    def summary(self) -> dict[str, float]:
        """The numbers that are watched."""
        return {
            "ndcg_at_10_without_early_exit": self.ndcg_without,
            "ndcg_at_10_with_early_exit": self.ndcg_with,
            "expected_early_exit_loss": self.expected_loss,
            **{f"{name}_pairs_per_query": pairs for name, pairs in self.pairs_with.items()},
        }


def fit_early_exit(
    scored: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    settings: TiersSettings,
    costs: Mapping[str, float],
) -> FittedEarlyExit:
    """Choose the windows of all models together, and which models are asked at all.

    Of the windows whose mean cost of a query is within `tiers.early_exit_budget` (pairs of the last model; 0 is no
    limit), the cheapest whose expected loss is at most `tiers.max_early_exit_loss` is taken, or where none is, the one
    with the least loss.

    Args:
        scored: The candidates of the development queries with the logits of all models.
        judgments: They only say what came of it.
        calibration: Its own windows are not read.
        settings: Candidates of each model, the budget and the loss.
        costs: What a pair costs in each model, by tier, as a share of what it costs in the last one.
    """
    expected = ExpectedOutcomes(scored, calibration, settings, costs)
    budget = settings.early_exit_budget or inf
    without_windows = calibration.without_windows
    full_cost, _ = expected.of(without_windows)
    # Where more candidates are allowed a later model than an earlier one, skipping that one shows it more of them.
    full = max(expected.of(EarlyExit.of(asked))[1] for asked in _chains(calibration.models))
    chosen, lost = without_windows, 0.0
    if full_cost > budget or settings.max_early_exit_loss:
        tried = [(*expected.of(early_exit), early_exit) for early_exit in expected.choices()]
        affordable = [choice for choice in tried if choice[0] <= budget] or [min(tried, key=lambda choice: choice[0])]
        close = [choice for choice in affordable if full - choice[1] <= settings.max_early_exit_loss]
        if close:
            _, value, chosen = min(close, key=lambda choice: (choice[0], -choice[1]))
        else:
            _, value, chosen = min(affordable, key=lambda choice: (-choice[1], choice[0]))
        lost = full - value
    without, with_windows = (
        tiered_ranking(scored, replace(calibration, early_exit=early_exit), settings)
        for early_exit in (without_windows, chosen)
    )
    judged = judgments.loc[judgments["query_id"].isin(scored["query_id"]), :]
    before, after = (
        mean_values(evaluate_run(collapse_to_documents(ranking), judged, [_MEASURE]))[_MEASURE]
        for ranking in (without, with_windows)
    )
    return FittedEarlyExit(
        chosen, before, after, lost, pairs_per_query(without, without_windows), pairs_per_query(with_windows, chosen)
    )


class ExpectedOutcomes:
    """What windows cost on the queries of `scored`, and the nDCG@10 that the last model expects of them."""

    def __init__(
        self, scored: pd.DataFrame, calibration: Calibration, settings: TiersSettings, costs: Mapping[str, float]
    ) -> None:
        limits = candidate_limits(settings)
        self._queries = [_Query(rows, calibration, limits) for _, rows in scored.groupby("query_id", sort=True)]
        self._costs = costs
        self._models = calibration.models

    def of(self, early_exit: EarlyExit) -> tuple[float, float]:
        """Mean cost of a query, in pairs of the last model, and mean expected nDCG@10."""
        outcomes = [query.outcome(early_exit) for query in self._queries]
        costs = [sum(self._costs[name] * count for name, count in pairs) for pairs, _ in outcomes]
        return float(np.mean(costs)), float(np.mean([value for _, value in outcomes]))

    def choices(self) -> Iterator[EarlyExit]:
        """All combinations of windows worth trying, for each chain of models, the shortest first."""
        for asked in _chains(self._models):
            steps = min(_STEPS, int(_MOST_CHOICES ** (1 / len(asked)) + 1e-9) - 2)
            windows = [
                _windows([query.logits[before.name] for query in self._queries], steps)
                for before, _ in pairwise((LEAN, *asked))
            ]
            for combination in product(*windows):
                windows_of = dict(zip((tier.name for tier in asked), combination, strict=True))
                yield replace(EarlyExit.of(asked), windows=windows_of)


class _Query:
    """The candidates of one query, and what walks with any windows make of them.

    Windows only decide how many candidates go on, so each of the few standings and outcomes is worked out once.
    `logits` are the combined logits [n] by tier.
    """

    def __init__(self, rows: pd.DataFrame, calibration: Calibration, limits: Mapping[str, int]) -> None:
        inputs = candidate_inputs(rows)
        self.logits = {tier.name: calibration.tiers[tier.name].logits(inputs) for tier in (LEAN, *calibration.models)}
        believed = probability(self.logits[LAST.name])
        self._relevant = believed / believed.sum()
        self._ties = tie_ranks(rows["passage_id"].tolist())
        self._limits = limits
        self._standings: dict[tuple[str, bytes], Standing] = {}
        self._values: dict[tuple[tuple[str, int], ...], float] = {}
        self._first = self._ask(LEAN, np.arange(len(rows)))

    def outcome(self, early_exit: EarlyExit) -> tuple[tuple[tuple[str, int], ...], float]:
        """Pairs of each model that was asked, by tier, and the expected nDCG@10."""
        standings = walk(self._first, early_exit, self._limits, self._ask)
        pairs = tuple((standing.tier.name, len(standing.rows)) for standing in standings[1:])
        if pairs not in self._values:
            top = best_first(final_scores(standings).logits, self._ties)[:_TOP]
            self._values[pairs] = float(self._relevant[top] @ (1 / np.log2(np.arange(2, len(top) + 2))))
        return pairs, self._values[pairs]

    def _ask(self, tier: TierSpec, rows: NDArray[np.int64]) -> Standing:
        key = tier.name, rows.tobytes()
        if key not in self._standings:
            logits = self.logits[tier.name][rows]
            order = best_first(logits, self._ties[rows])
            self._standings[key] = Standing(tier, rows[order], logits[order])
        return self._standings[key]


def _chains(models: Sequence[TierSpec]) -> list[tuple[TierSpec, ...]]:
    """The models that may be asked one after the other, the fewest first: the last one behind any of the others."""
    *others, last = models
    return [(*chain, last) for count in range(len(others) + 1) for chain in combinations(others, count)]


def _windows(logits: Sequence[NDArray[np.float64]], steps: int) -> list[float]:
    """Windows to try: none, quantiles of how far candidates are behind the best of their query, and no limit.

    The quantiles are close where windows are narrow, however many candidates a query has.
    """
    behind = np.concatenate([np.zeros(0), *(values.max(initial=-inf) - values for values in logits)])
    behind = behind[behind > 0]
    if not len(behind):
        return [0.0, inf]
    narrowest = min(_FEWEST * len(logits) / len(behind), 1.0)
    return [0.0, *np.quantile(behind, np.geomspace(narrowest, 1, steps)).tolist(), inf]
