"""Which candidates the next model is asked about, and how the scores of different models stand to each other."""

from __future__ import annotations

import json
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cascade.windows import EarlyExit, enforce_tier_order, within_window
from models.contracts.tiers import LAST, MODEL_TIERS

DESCENDING = np.array([3.0, 2.5, 2.5, 0.0, -1.0])


@pytest.mark.parametrize(
    ("most", "window", "expected"),
    [(5, inf, 5), (2, inf, 2), (5, 0.5, 3), (2, 0.5, 2), (5, 0.4, 0), (1, inf, 1), (1, 9.0, 0), (0, inf, 0)],
)
def test_those_near_the_best_go_on(most: int, window: float, expected: int) -> None:
    assert within_window(DESCENDING, most, window) == expected


@given(st.lists(st.floats(-5, 5), max_size=12), st.integers(0, 14), st.floats(0, 4), st.floats(0, 4))
def test_a_wider_window_keeps_all(values: list[float], most: int, first: float, second: float) -> None:
    descending = np.array(sorted(values, reverse=True))
    narrow, wide = (within_window(descending, most, window) for window in sorted((first, second)))
    assert narrow <= wide <= min(most, len(values))
    assert wide != 1


@pytest.mark.parametrize(
    "early_exit",
    [EarlyExit(), EarlyExit({"compact": 1.5}), EarlyExit({"compact": 0, "large": 2}, frozenset({"compact"}))],
)
def test_it_is_kept_as_json(early_exit: EarlyExit) -> None:
    assert EarlyExit.from_dict(json.loads(json.dumps(early_exit.to_dict()))) == early_exit


def test_a_window_without_limit_is_none() -> None:
    compact, large = MODEL_TIERS[0], LAST
    early_exit = EarlyExit({"compact": inf, "large": 2.0})
    assert early_exit == EarlyExit({"large": 2.0})
    assert (early_exit.window(compact), early_exit.window(large)) == (inf, 2.0)


def test_a_model_that_is_skipped_is_not_asked() -> None:
    assert EarlyExit().asked() == MODEL_TIERS
    assert EarlyExit(skipped=frozenset({"compact"})).asked() == MODEL_TIERS[1:]


def test_what_a_model_was_asked_about_stays_above_the_rest() -> None:
    logits = np.array([3.0, -4.0, 1.0, 2.0, -5.0])
    ordered = enforce_tier_order(logits, np.array([0, 2, 1, 0, 2]))
    assert ordered[[1, 4]].tolist() == [-4.0, -5.0]
    assert ordered[2] == pytest.approx(-5.0, abs=1e-5)
    assert ordered[2] < -5.0
    assert ordered[0] < ordered[2]
    assert ordered[0] - ordered[3] == pytest.approx(1.0)
    assert logits.tolist() == [3.0, -4.0, 1.0, 2.0, -5.0]


def test_scores_in_the_order_of_their_tiers_are_left_as_they_are() -> None:
    logits = np.array([3.0, 1.0, -2.0])
    for levels in ([2, 1, 0], [0, 0, 0]):
        assert enforce_tier_order(logits, np.array(levels)).tolist() == logits.tolist()
    assert enforce_tier_order(np.empty(0), np.empty(0, dtype=np.int64)).shape == (0,)
