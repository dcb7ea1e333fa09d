"""Served latency over a rolling window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.serving.objectives import RollingLatency, ServedLatency, served_latency
from models.settings import ObjectivesSettings

OBJECTIVES = ObjectivesSettings(p95_ms=100, p99_ms=200, window_minutes=10)


def test_nothing_served_has_no_percentile_and_its_whole_budget() -> None:
    assert RollingLatency(OBJECTIVES).summary() == ServedLatency(0, None, None, None, 0.0, 0.0, 1.0, 1.0, 0.0)


@settings(deadline=None)
@given(st.lists(st.floats(0.2, 60_000), min_size=1, max_size=300))
def test_percentiles_are_right_within_five_percent(latencies: list[float]) -> None:
    result = served_latency([(item, False) for item in latencies], OBJECTIVES)
    expected = np.percentile(latencies, [50, 95, 99], method="inverted_cdf")
    for value, exact in zip((result.p50_ms, result.p95_ms, result.p99_ms), expected, strict=True):
        assert value is not None
        assert exact * 0.9999 <= value <= exact * 1.0501


def test_the_budget_is_spent_by_requests_over_the_objective() -> None:
    result = served_latency([(50.0, False)] * 95 + [(150.0, True)] * 4 + [(250.0, True)], OBJECTIVES)
    assert (result.requests, result.over_p95_share, result.over_p99_share) == (100, 0.05, 0.01)
    assert (result.p95_budget_left, result.p99_budget_left) == pytest.approx((0.0, 0.0))
    assert result.degraded_share == 0.05
    assert served_latency([(100.0, False), (200.0, False)], OBJECTIVES).p99_budget_left == 1.0
    assert served_latency([(300.0, False)], OBJECTIVES).p99_budget_left == pytest.approx(-99.0)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    now = 0.0
    window = RollingLatency(OBJECTIVES, lambda: now)
    window.observe(1000.0, degraded=True)
    now = 9 * 60.0
    window.observe(10.0)
    assert window.summary().requests == 2
    now = 10 * 60.0
    result = window.summary()
    assert (result.requests, result.over_p95_share, result.degraded_share) == (1, 0.0, 0.0)
    now = 1e6
    assert window.summary().requests == 0
