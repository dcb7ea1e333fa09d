"""Served latency against the objectives: quantiles and error budget over a rolling window.

Latencies are counted in buckets 5 % wide, a row of them for each minute, so that a quantile is right within 5 % and
the memory does not grow with traffic. The error budget of an objective is the share of requests that it lets be slower
(5 % for the 95th percentile, 1 % for the 99th; Beyer et al., Site Reliability Engineering, 2016).
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from models.settings import ObjectivesSettings

_RATIO = 1.05
_LOWEST_MS = 0.1
_SLICE_S = 60.0


@dataclass(frozen=True)
class ServedLatency:
    """Latency of `requests` requests, milliseconds, None without any; budgets are what is left of 1, below 0 when
    overspent."""

    requests: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    over_p95_share: float
    over_p99_share: float
    p95_budget_left: float
    p99_budget_left: float
    degraded_share: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class _Slice:
    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[int, int] = {}
        self.over_p95 = self.over_p99 = self.degraded = 0


class RollingLatency:
    """What was served in the last `objectives.window_minutes`. Threads may share it."""

    def __init__(self, objectives: ObjectivesSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._objectives = objectives
        self._clock = clock
        self._slices: deque[_Slice] = deque()
        self._lock = threading.Lock()

    def observe(self, milliseconds: float, degraded: bool = False) -> None:
        """Count an answered request."""
        number = int(self._clock() // _SLICE_S)
        with self._lock:
            self._forget(number)
            if not self._slices or self._slices[-1].number != number:
                self._slices.append(_Slice(number))
            current = self._slices[-1]
            bucket = _bucket(milliseconds)
            current.counts[bucket] = current.counts.get(bucket, 0) + 1
            current.over_p95 += milliseconds > self._objectives.p95_ms
            current.over_p99 += milliseconds > self._objectives.p99_ms
            current.degraded += degraded

    def summary(self) -> ServedLatency:
        """The window up to now."""
        with self._lock:
            self._forget(int(self._clock() // _SLICE_S))
            counts: dict[int, int] = {}
            for part in self._slices:
                for bucket, count in part.counts.items():
                    counts[bucket] = counts.get(bucket, 0) + count
            over_p95 = sum(part.over_p95 for part in self._slices)
            over_p99 = sum(part.over_p99 for part in self._slices)
            degraded = sum(part.degraded for part in self._slices)
        requests = sum(counts.values())
        share = 1 / max(requests, 1)
        return ServedLatency(
            requests,
            _quantile(counts, requests, 0.5),
            _quantile(counts, requests, 0.95),
            _quantile(counts, requests, 0.99),
            over_p95 * share,
            over_p99 * share,
            1 - over_p95 * share / 0.05,
            1 - over_p99 * share / 0.01,
            degraded * share,
        )

    def _forget(self, now: int) -> None:
        while self._slices and self._slices[0].number <= now - self._objectives.window_minutes:
            self._slices.popleft()


def served_latency(answers: Iterable[tuple[float, bool]], objectives: ObjectivesSettings) -> ServedLatency:
    """The same of stored answers, given as (milliseconds, degraded)."""
    window = RollingLatency(objectives, clock=lambda: 0.0)
    for milliseconds, degraded in answers:
        window.observe(milliseconds, degraded)
    return window.summary()


def _bucket(milliseconds: float) -> int:
    return math.ceil(math.log(max(milliseconds, _LOWEST_MS) / _LOWEST_MS, _RATIO))


def _quantile(counts: dict[int, int], requests: int, share: float) -> float | None:
    """The upper bound of the bucket that holds the quantile (nearest rank)."""
    rank = math.ceil(share * requests)
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return _LOWEST_MS * _RATIO**bucket
    return None
