"""Prometheus metrics and JSON log lines. Neither holds the text of a query or document, nor a key."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from models.errors import RerankOpsError

if TYPE_CHECKING:
    from models.decisions import DecisionWriter
    from models.ledger import Release
    from models.serving_types import Ranking
    from models.settings import ObjectivesSettings

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
_STAGE = re.compile(r"^[a-z][a-z0-9_]{0,40}$")
_VERSIONS = ("release_id", "bundle_version", "model_version", "index_version", "corpus_version")


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
        self._degraded = Counter("rerankops_degraded", "Degraded answers.", ["route"], registry=self.registry)
        self._truncated = Counter("rerankops_truncated", "Texts cut to the model's length.", registry=self.registry)
        self._tokens = Counter("rerankops_tokens", "Tokens that the models read.", registry=self.registry)
        self._queued = Gauge("rerankops_queued_requests", "Requests in front of the models.", registry=self.registry)
        self._release = Gauge("rerankops_release_info", "The release that serves.", _VERSIONS, registry=self.registry)
        self._swaps = Counter("rerankops_release_loads", "Loads of a release.", ["outcome"], registry=self.registry)
        self._load_s = Gauge("rerankops_release_load_seconds", "Time of the last load.", registry=self.registry)
        self._unrecorded = Counter(
            "rerankops_decisions_unrecorded", "Decisions that the writer did not take.", registry=self.registry
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

    def ranking(self, route: str, ranking: Ranking, stage_ms: Mapping[str, float]) -> None:
        """Count one ranking and the stages of its request."""
        for tier, count in ranking.tier_counts.items():
            self._tiers.labels(tier).inc(count)
        for stage, milliseconds in stage_ms.items():
            self._stages.labels(stage if _STAGE.match(stage) else "other").observe(milliseconds / 1000)
        self._truncated.inc(ranking.truncated)
        self._tokens.inc(ranking.tokens)
        if ranking.degraded:
            self._degraded.labels(route).inc()

    def queue(self, length: int) -> None:
        """Set the number of requests in front of the models."""
        self._queued.set(length)

    def serving(self, release: Release, seconds: float) -> None:
        """Note a release that serves from now on."""
        self._release.clear()
        self._release.labels(*(str(getattr(release, name)) for name in _VERSIONS)).set(1)
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


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the `facts` given in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= error_facts(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def error_facts(error: BaseException) -> dict[str, object]:
    """An exception for the log: its class and where it was raised.

    Its text is left out unless it is ours: other libraries quote their input, which may be a query.
    """
    facts: dict[str, object] = {
        "error": type(error).__name__,
        "raised_at": [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ],
    }
    if isinstance(error, RerankOpsError):
        facts["error_message"] = str(error)
    if error.__cause__ is not None:
        facts["cause"] = error_facts(error.__cause__)
    return facts


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the whole process' log to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
