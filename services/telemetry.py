"""Prometheus metrics. They hold no text of a query or document, and no key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from models.contracts.messages import Generation
from models.serving.objectives import RollingLatency
from models.serving.protocol import Ranking, ServedVersions
from models.serving.score_cache import MemoryCache, RedisCache
from services.lanes import BypassReason

if TYPE_CHECKING:
    from models.records.decision_writer import DecisionWriter
    from models.records.ledger import Release
    from models.settings import ObjectivesSettings
    from services.scorer.supervisor import ScorerRestarts

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
_STAGE = re.compile(r"^[a-z][a-z0-9_]{0,40}$")
_REASONS = (*get_args(BypassReason), "fault")
_VERSIONS = tuple(version.name for version in fields(ServedVersions))


class ModelQueue(Protocol):
    """What stands in front of the models (`services.release_watcher.ReleaseWatcher`)."""

    @property
    def queued_requests(self) -> int:
        """Requests that the models have not answered yet."""
        ...

    @property
    def queued_ms(self) -> float:
        """Predicted milliseconds of their work."""
        ...

    @property
    def outage(self) -> str:
        """Why the models cannot be asked now; empty when they can."""
        ...


class Telemetry:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, objectives: ObjectivesSettings) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        # The objectives are bucket bounds, so the share of requests within them is exact.
        buckets = tuple(sorted({*_BUCKETS_S, objectives.p95_ms / 1000, objectives.p99_ms / 1000}))
        self._requests = Counter(
            "rerankops_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "rerankops_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["route"],
            buckets=buckets,
            registry=self.registry,
        )
        self._stages = Histogram(
            "rerankops_stage_seconds", "Time of each stage.", ["stage"], buckets=buckets, registry=self.registry
        )
        self._tiers = Counter("rerankops_scored", "Texts by the tier that decided.", ["tier"], registry=self.registry)
        self._degraded = Counter(
            "rerankops_degraded", "Degraded answers, by why.", ["route", "why"], registry=self.registry
        )
        self._generated = Counter(
            "rerankops_generated",
            "Answers written, by what wrote them, their kind, and why it was not the language model.",
            ["generator", "kind", "fallback"],
            registry=self.registry,
        )
        self._answers = Histogram(
            "rerankops_answer_seconds",
            "Time of an answer, by the tier of its first result.",
            ["route", "tier"],
            buckets=buckets,
            registry=self.registry,
        )
        self.latency = RollingLatency(objectives)
        self.registry.register(_Objectives(objectives, self.latency))
        self._truncated = Counter("rerankops_truncated", "Texts cut to the model's length.", registry=self.registry)
        self._tokens = Counter("rerankops_tokens", "Tokens that the models read.", registry=self.registry)
        self._release = Gauge("rerankops_release_info", "The release that serves.", _VERSIONS, registry=self.registry)
        self._swaps = Counter("rerankops_release_loads", "Loads of a release.", ["outcome"], registry=self.registry)
        self._load_s = Gauge("rerankops_release_load_seconds", "Time of the last load.", registry=self.registry)
        self._unrecorded = Counter(
            "rerankops_decisions_unrecorded", "Decisions that the writer did not take.", registry=self.registry
        )

    def watch_queue(self, queue: ModelQueue) -> None:
        """Expose what stands in front of the models, and whether they can be asked."""
        requests = Gauge("rerankops_queued_requests", "Requests in front of the models.", registry=self.registry)
        seconds = Gauge("rerankops_queued_seconds", "Predicted time of their work.", registry=self.registry)
        requests.set_function(lambda: float(queue.queued_requests))
        seconds.set_function(lambda: queue.queued_ms / 1000)
        up = Gauge("rerankops_scorer_up", "0 while answers are lean since no process scores.", registry=self.registry)
        up.set_function(lambda: float(not queue.outage))

    def watch_scorers(self, restarts: ScorerRestarts) -> None:
        """Expose how often a scoring process was replaced."""
        gauge = Gauge("rerankops_scorer_restarts", "Scoring processes started anew.", registry=self.registry)
        gauge.set_function(lambda: float(restarts.count))

    def watch_cache(self, cache: MemoryCache | RedisCache) -> None:
        """Expose how often scores were known."""
        memory = cache.memory if isinstance(cache, RedisCache) else cache
        shown: list[tuple[str, str, Callable[[], float]]] = [
            ("hits", "Scores found in memory since the start.", lambda: memory.hits),
            ("misses", "Scores not found in memory since the start.", lambda: memory.misses),
            ("hit_share", "Share of scores that were known, since the start.", lambda: cache.hit_share),
            ("entries", "Scores in memory.", lambda: memory.entries),
        ]
        if isinstance(cache, RedisCache):
            shown += [
                ("redis_hits", "Scores found in Redis since the start.", lambda: cache.hits),
                ("redis_failures", "Calls of Redis that failed since the start.", lambda: cache.failures),
                (
                    "redis_refused",
                    "Values in Redis that no service of this key wrote, or that are no score.",
                    lambda: cache.refused,
                ),
                ("redis_dropped", "Writes dropped since Redis was too slow.", lambda: cache.dropped),
                ("redis_breaker_open", "1 while Redis is left alone.", lambda: cache.breaker_open),
            ]
        for name, text, value in shown:
            Gauge(f"rerankops_cache_{name}", text, registry=self.registry).set_function(
                lambda value=value: float(value())
            )

    def watch_writer(self, writer: DecisionWriter) -> None:
        """Expose the state of the decision log."""
        for name, text in (
            ("written", "Decisions stored since the start."),
            ("pending", "Decisions in memory."),
            ("spooled", "Decisions that wait on disk for the database."),
            ("rejected", "Decisions that the database refused."),
            ("lost", "Decisions that fitted nowhere."),
        ):
            gauge = Gauge(f"rerankops_decisions_{name}", text, registry=self.registry)
            gauge.set_function(lambda name=name: float(getattr(writer, name)))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, route: str, tier: str, seconds: float, degraded: bool) -> None:
        """Count one answer with a ranking; what it took counts against the objectives."""
        self._answers.labels(route, tier).observe(seconds)
        self.latency.observe(1000 * seconds, degraded)

    def generated(self, generation: Generation) -> None:
        """Count one written answer."""
        fallback = generation.fallback_reason.partition(":")[0]
        self._generated.labels(generation.generator, generation.kind, fallback).inc()

    def ranking(self, route: str, ranking: Ranking, stage_ms: Mapping[str, float]) -> None:
        """Count one ranking and the stages of its request."""
        for tier, count in ranking.tier_counts.items():
            self._tiers.labels(tier).inc(count)
        for stage, milliseconds in stage_ms.items():
            self._stages.labels(stage if _STAGE.match(stage) else "other").observe(milliseconds / 1000)
        self._truncated.inc(ranking.truncated)
        self._tokens.inc(ranking.tokens)
        if ranking.degraded:
            why = ranking.degraded_reason.partition(":")[0]
            self._degraded.labels(route, why if why in _REASONS else "budget").inc()

    def serving(self, release: Release, seconds: float) -> None:
        """Note a release that serves from now on."""
        self._release.clear()
        self._release.labels(**asdict(ServedVersions.of(release))).set(1)
        self._swaps.labels("loaded").inc()
        self._load_s.set(seconds)

    def load_failed(self) -> None:
        """Count a release that did not load."""
        self._swaps.labels("failed").inc()

    def unrecorded(self) -> None:
        """Count a decision that the writer did not take."""
        self._unrecorded.inc()

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Objectives(Collector):
    """The rolling window as gauges, counted once for each scrape."""

    def __init__(self, objectives: ObjectivesSettings, latency: RollingLatency) -> None:
        self._objectives = objectives
        self._latency = latency

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        latency = self._latency.summary()
        window = f"the last {self._objectives.window_minutes} minutes"
        served = GaugeMetricFamily("rerankops_latency_seconds", f"Answers of {window}.", labels=["quantile"])
        for quantile, value in (("0.5", latency.p50_ms), ("0.95", latency.p95_ms), ("0.99", latency.p99_ms)):
            served.add_metric([quantile], float("nan") if value is None else value / 1000)
        wanted = GaugeMetricFamily("rerankops_objective_seconds", "Objectives of the settings.", labels=["quantile"])
        budget = GaugeMetricFamily(
            "rerankops_error_budget_left", f"Part of the error budget of {window} that is left.", labels=["quantile"]
        )
        for quantile, objective_ms, left in (
            ("0.95", self._objectives.p95_ms, latency.p95_budget_left),
            ("0.99", self._objectives.p99_ms, latency.p99_budget_left),
        ):
            wanted.add_metric([quantile], objective_ms / 1000)
            budget.add_metric([quantile], left)
        yield from (served, wanted, budget)
        yield GaugeMetricFamily("rerankops_degraded_share", f"Of {window}.", value=latency.degraded_share)
