from __future__ import annotations

import gc
import itertools
import json

import pytest

from models.errors import ContractError
from models.measures import latency
from models.measures.latency import LatencySummary, measure, summarize


def test_percentiles_are_nearest_ranks() -> None:
    summary = summarize([float(value) for value in range(100, 0, -1)])

    assert summary == LatencySummary(p50_ms=50, p95_ms=95, p99_ms=99, mean_ms=50.5, n=100)


def test_a_single_slow_call_shows_in_p99_of_few_samples() -> None:
    summary = summarize([1.0] * 19 + [500.0])

    assert (summary.p50_ms, summary.p95_ms, summary.p99_ms) == (1.0, 1.0, 500.0)


def test_times_come_from_the_clock_and_leave_out_the_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 2_000_000)
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(clock))
    calls: list[bool] = []

    summary = measure(lambda: calls.append(gc.isenabled()), repeats=5, warmup=3)

    assert summary == LatencySummary(2.0, 2.0, 2.0, 2.0, 5)
    assert calls == [True] * 3 + [False] * 5
    assert gc.isenabled()


def test_the_collector_returns_when_the_call_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0, repeats=1, warmup=0)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        measure(lambda: None, repeats=1, warmup=0)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")], [-1.0]])
def test_impossible_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(ContractError):
        summarize(samples)


def test_a_summary_survives_json() -> None:
    summary = measure(lambda: sum(range(1000)), repeats=7, warmup=1)

    assert LatencySummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    assert summary.n == 7
    assert 0 < summary.p50_ms <= summary.p95_ms <= summary.p99_ms
