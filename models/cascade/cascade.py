"""The walk of one query's candidates down the tiers, and the order that it gives them.

It is written once: the service walks inside a deadline and with a cache (`models.serving.tiered_reranker`), offline
ranking with the columns of a table (`models.cascade.offline`), and the fitting of windows with arrays that it keeps
(`models.cascade.window_fitting`). They differ in how a tier is asked, which is an argument of `walk`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cascade.calibration import Calibration
from models.cascade.windows import EarlyExit, enforce_tier_order, within_window
from models.contracts.tiers import LEAN, MODEL_TIERS, Tier, TierSpec


@dataclass(frozen=True, slots=True)
class Standing:
    """Candidates of a query that one tier has scored, best first, ties in the order of their ids.

    Attributes:
        tier: What scored them.
        rows: int64 [m] rows of the query's candidates.
        logits: float64 [m] combined logits of that tier, descending.
    """

    tier: TierSpec
    rows: NDArray[np.int64]
    logits: NDArray[np.float64]


Ask = Callable[[TierSpec, NDArray[np.int64]], Standing]
"""Lets a tier score rows, best first by the tier before; the standing may lack rows for which time did not suffice."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The end of a walk, by row [n]: logits, before the sigmoid, and the tier that each one is from."""

    logits: NDArray[np.float64]
    tiers: tuple[Tier, ...]


class CombinedScores:
    """The candidates of one query with their scores, combined tier by tier.

    Args:
        calibration: How each tier combines scores.
        inputs: Arrays [n] as in `models.cascade.calibration.Inputs`. Of a model's logits only those rows are read that
            `standing` names, so that they may be filled in as a walk goes on.
        ids: [n] ids that break ties.
    """

    def __init__(
        self, calibration: Calibration, inputs: Mapping[str, NDArray[np.floating]], ids: Sequence[str]
    ) -> None:
        self._calibration = calibration
        self._inputs = inputs
        self._ties = tie_ranks(ids)

    def standing(self, tier: TierSpec, rows: NDArray[np.int64]) -> Standing:
        """Where `rows` stand by the combined logits of `tier`."""
        logits = self._calibration.tiers[tier.name].logits(
            {name: np.asarray(values)[rows] for name, values in self._inputs.items()}
        )
        order = best_first(logits, self._ties[rows])
        return Standing(tier, rows[order], logits[order])

    def first(self) -> Standing:
        """Where all candidates stand before any model is asked."""
        return self.standing(LEAN, np.arange(len(self._ties)))

    def order(self, scored: Scored) -> NDArray[np.int64]:
        """All rows, best first."""
        return best_first(scored.logits, self._ties)


def walk(
    first: Standing,
    early_exit: EarlyExit,
    limits: Mapping[str, int],
    ask: Ask,
    tiers: Sequence[TierSpec] = MODEL_TIERS,
) -> list[Standing]:
    """Ask one model after the other about the best of what the one before it has scored.

    Args:
        first: All candidates by the first stage.
        early_exit: Models that are skipped, and how close to the best a candidate must be.
        limits: How many candidates each model scores at most, by tier.
        ask: Lets a model score some rows.
        tiers: The models, in the order in which they are asked.

    Returns:
        `first` and a standing of each model that was asked, each with some of the rows of the one before. The walk ends
        early where no candidate goes on.
    """
    standings = [first]
    for tier in early_exit.asked(tiers):
        before = standings[-1]
        count = within_window(before.logits, limits[tier.name], early_exit.window(tier))
        if not count:
            break
        standings.append(ask(tier, before.rows[:count]))
    return standings


def final_scores(standings: Sequence[Standing]) -> Scored:
    """The score of each row by the last tier that scored it.

    What a model has scored stays above what it was not asked about, as in a cascade of rankers (Wang, Lin and Metzler,
    SIGIR 2011): a model that believes little of all the best candidates of a query would believe little of the others
    too. So where a score of the others is above the lowest of those, they are all lowered by the difference, and keep
    their order.
    """
    count = len(standings[0].rows)
    logits, levels = np.empty(count), np.zeros(count, dtype=np.int64)
    for level, standing in enumerate(standings):
        logits[standing.rows], levels[standing.rows] = standing.logits, level
    names: list[Tier] = [standing.tier.name for standing in standings]
    return Scored(enforce_tier_order(logits, levels), tuple(names[level] for level in levels))


def most_pairs(
    count: int, early_exit: EarlyExit, limits: Mapping[str, int], tiers: Sequence[TierSpec] = MODEL_TIERS
) -> dict[str, int]:
    """Pairs that each model asked scores of a query with `count` candidates, if no window ends its walk early."""
    pairs: dict[str, int] = {}
    for tier in early_exit.asked(tiers):
        count = pairs[tier.name] = min(count, limits[tier.name])
    return pairs


def tie_ranks(ids: Sequence[str]) -> NDArray[np.int64]:
    """int64 [n] place of each id among all, which breaks ties as the ids do, and faster."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def best_first(logits: NDArray[np.float64], ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the logits [n], highest first; of equal logits the lower of `ties` [n] first."""
    return np.lexsort((ties, -logits))
