"""One query's way down the tiers, of which there may be any number."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, TierScorer
from models.cascade.cascade import CombinedScores, Scored, Standing, final_scores, most_pairs, walk
from models.cascade.windows import EarlyExit
from models.contracts.tiers import LAST, LEAN, MODEL_TIERS, Tier, TierSpec

COMPACT, LARGE = MODEL_TIERS[0], LAST
MEDIUM = TierSpec(cast(Tier, "medium"), ("medium",))
THREE = (COMPACT, MEDIUM, LARGE)


def weighing(name: str) -> TierScorer:
    """A scorer whose logits are one input."""
    return TierScorer((name,), (0.0,), (1.0,), (1.0,), 1.0, 0.0)


CALIBRATION = Calibration(
    {"lean": weighing("dense"), **{name: weighing(name) for name in ("compact", "medium", "large")}}, 1, {}
)


def walked(
    inputs: dict[str, list[float]], early_exit: EarlyExit, limits: tuple[int, int, int]
) -> tuple[list[Standing], Scored]:
    """The standings and the end of a walk over three models."""
    ids = [f"p{row:02d}" for row in range(len(inputs["dense"]))]
    scores = CombinedScores(CALIBRATION, {name: np.array(values) for name, values in inputs.items()}, ids)
    names = (tier.name for tier in THREE)
    standings = walk(scores.first(), early_exit, dict(zip(names, limits, strict=True)), scores.standing, THREE)
    return standings, final_scores(standings)


FIVE = {
    "dense": [0.5, 0.4, 0.3, 0.2, 0.1],
    "compact": [1.0, 4.0, 3.0, 2.0, 9.0],
    "medium": [9.0, 1.0, 2.0, 3.0, 9.0],
    "large": [9.0, 9.0, 0.5, 0.2, 9.0],
}


def test_each_model_is_asked_about_the_best_of_the_one_before() -> None:
    standings, scored = walked(FIVE, EarlyExit(), (4, 3, 2))
    assert [(standing.tier.name, standing.rows.tolist()) for standing in standings] == [
        ("lean", [0, 1, 2, 3, 4]),
        ("compact", [1, 2, 3, 0]),
        ("medium", [3, 2, 1]),
        ("large", [2, 3]),
    ]
    assert scored.tiers == ("compact", "medium", "large", "large", "lean")
    assert np.argsort(-scored.logits).tolist() == [2, 3, 1, 0, 4]


@pytest.mark.parametrize(
    ("skipped", "asked"),
    [
        ({"compact"}, ["lean", "medium", "large"]),
        ({"medium"}, ["lean", "compact", "large"]),
        ({"compact", "medium"}, ["lean", "large"]),
    ],
)
def test_a_model_that_is_skipped_leaves_its_place_to_the_next(skipped: set[str], asked: list[str]) -> None:
    standings, _ = walked(FIVE, EarlyExit(skipped=frozenset(skipped)), (4, 3, 2))
    assert [standing.tier.name for standing in standings] == asked
    assert len(standings[-1].rows) == 2


def test_a_best_one_that_stands_alone_ends_the_walk() -> None:
    standings, scored = walked(FIVE, EarlyExit({"medium": 0.5}), (4, 3, 2))
    assert [standing.tier.name for standing in standings] == ["lean", "compact"]
    assert set(scored.tiers) == {"compact", "lean"}


def test_what_a_model_did_not_get_to_is_not_passed_on() -> None:
    scores = CombinedScores(CALIBRATION, {name: np.array(values) for name, values in FIVE.items()}, list("abcde"))

    def half(tier: TierSpec, rows: NDArray[np.int64]) -> Standing:
        return scores.standing(tier, rows[: len(rows) // 2])

    standings = walk(scores.first(), EarlyExit(), {"compact": 4, "medium": 4, "large": 4}, half, THREE)
    assert [standing.rows.tolist() for standing in standings] == [[0, 1, 2, 3, 4], [1, 0], [1], []]
    assert final_scores(standings).tiers == ("compact", "medium", "lean", "lean", "lean")


SOME = st.integers(-3, 3).map(float)


@given(
    rows=st.lists(st.tuples(SOME, SOME, SOME, SOME), max_size=9),
    limits=st.tuples(*[st.integers(0, 9)] * 3),
    windows=st.dictionaries(st.sampled_from([tier.name for tier in THREE]), st.floats(0, 4)),
    skipped=st.frozensets(st.sampled_from(["compact", "medium"])),
)
def test_a_walk_keeps_its_promises(
    rows: list[tuple[float, ...]], limits: tuple[int, int, int], windows: dict[str, float], skipped: frozenset[str]
) -> None:
    names = ("dense", "compact", "medium", "large")
    inputs = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    early_exit = EarlyExit(windows, skipped)
    standings, scored = walked(inputs, early_exit, limits)
    by_tier = dict(zip((tier.name for tier in THREE), limits, strict=True))
    most = most_pairs(len(rows), early_exit, by_tier, THREE)
    for before, standing in pairwise(standings):
        assert standing.tier.name not in skipped
        assert set(standing.rows.tolist()) <= set(before.rows.tolist())
        assert len(standing.rows) <= most[standing.tier.name] <= by_tier[standing.tier.name]
        behind = before.logits[0] - before.logits[np.isin(before.rows, standing.rows)]
        assert behind.max() <= early_exit.window(standing.tier)
    # What a later model scored is above what it was not asked about.
    levels = [LEAN.name, *(tier.name for tier in THREE)]
    best_first = [levels.index(scored.tiers[row]) for row in np.argsort(-scored.logits, kind="stable")]
    assert best_first == sorted(best_first, reverse=True)
    if not windows:
        assert [len(standing.rows) for standing in standings[1:]] == [
            most[tier.name] for tier in early_exit.asked(THREE) if most[tier.name]
        ]
