"""How long a call takes: repeated, warmed up, without the garbage collector in between."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from models.errors import ContractError


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles and mean of `n` calls, in milliseconds. Percentiles are observed values (nearest rank)."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencySummary:
        """Read what `to_dict` wrote."""
        return cls(**values)


def measure(call: Callable[[], object], repeats: int, warmup: int) -> LatencySummary:
    """Time `call` `repeats` times after `warmup` calls that are not counted. Its exceptions pass through.

    The collector runs before and rests while the calls are timed, so that a pause caused by earlier work is not charged
    to them; its former state returns afterwards.
    """
    for _ in range(warmup):
        call()
    samples = []
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            started = time.perf_counter_ns()
            call()
            samples.append((time.perf_counter_ns() - started) / 1e6)
    finally:
        if enabled:
            gc.enable()
    return summarize(samples)


def summarize(samples_ms: Sequence[float]) -> LatencySummary:
    """Percentiles and mean of durations in milliseconds. Raises `ContractError` for none or an impossible one."""
    samples = np.asarray(samples_ms, dtype=float)
    if samples.size == 0:
        raise ContractError("no latency was measured", "Time at least one call.")
    if not np.isfinite(samples).all() or (samples < 0).any():
        raise ContractError(
            "a measured latency is negative or not a finite number", "Measure again with a monotonic clock."
        )
    p50, p95, p99 = (float(value) for value in np.percentile(samples, [50, 95, 99], method="inverted_cdf"))
    return LatencySummary(p50, p95, p99, float(samples.mean()), int(samples.size))
