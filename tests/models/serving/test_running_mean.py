"""A mean that follows what is measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.serving.running_mean import RunningMean

NUMBERS = st.floats(-1e6, 1e6)


@given(start=NUMBERS, weight=st.floats(0.01, 1), measurements=st.lists(NUMBERS, max_size=20))
def test_it_is_the_weighted_sum_of_its_start_and_of_what_was_measured(
    start: float, weight: float, measurements: list[float]
) -> None:
    mean = RunningMean(start, weight)
    for measurement in measurements:
        mean.observe(measurement)
    weights = [weight * (1 - weight) ** age for age in reversed(range(len(measurements)))]
    weighted = sum(share * measurement for share, measurement in zip(weights, measurements, strict=True))
    assert mean.value == pytest.approx(weighted + (1 - weight) ** len(measurements) * start, abs=1e-6)


def test_it_settles_at_what_is_measured_again_and_again() -> None:
    mean = RunningMean(100.0, 0.1)
    for _ in range(400):
        mean.observe(2.0)
    assert mean.value == pytest.approx(2.0)
