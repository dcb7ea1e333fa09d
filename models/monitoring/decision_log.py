"""The daily decision log: one row per decision, without the deployment's own probes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.contracts.messages import PROBE_CALLER, Decision
from models.measures.latency import summarize
from models.monitoring.drift import FEATURES, decision_features
from models.monitoring.steps import DECISION_LOG
from models.records import decisions
from models.store.durable_files import digest_json
from models.store.tables import write_table

if TYPE_CHECKING:
    from models.records.database import Database
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore

LOG_FILE = "decision_log.parquet"
_LATE_DAYS = 14
_TEXTS = (
    "decision_id", "trace_id", "endpoint", "caller", "experiment_arm", "release_id", "model_version", "index_version",
    "corpus_version", "degraded_reason", "query",
)  # fmt: skip
_COUNTS = ("citations", "passages", "query_characters", "query_words")
_NUMBERS = tuple(feature for feature in FEATURES if feature not in ("row_id", *_TEXTS, *_COUNTS))
_TYPES = {
    **dict.fromkeys(_TEXTS, "str"),
    "time": "datetime64[us, UTC]",
    **dict.fromkeys(("degraded", "answered"), "bool"),
    **dict.fromkeys(_COUNTS, "int64"),
    **dict.fromkeys(_NUMBERS, "float64"),
}


def make_decision_log(store: ArtifactStore, settings: Settings, database: Database, day: date) -> Artifact:
    """The log of a UTC day as it is now."""
    log = read_day(database, day)
    outside = {"decisions": log_digest(log)}
    return DECISION_LOG.get_or_create(store, settings, partial(write_log, log), outside=outside)


def late_days(store: ArtifactStore, settings: Settings, database: Database, day: date) -> list[date]:
    """Days before `day` that have decisions which their logs lack, oldest first: those that waited on a disk for the
    database until the log was made, or a whole day that none was made of.

    Looks back two weeks, and where decisions are kept for less as far as none goes until tomorrow: a log that is made
    again must not lose any.
    """
    kept_days = settings.retention.decision_days or _LATE_DAYS + 2
    days = [day - timedelta(days=back) for back in range(min(_LATE_DAYS, kept_days - 2), 0, -1)]
    return [late for late in days if _stored(database, late) > _logged(store, late)]


def _stored(database: Database, day: date) -> int:
    start = datetime.combine(day, time(), UTC)
    return decisions.count(database, start, start + timedelta(days=1), exclude_callers=[PROBE_CALLER])


def _logged(store: ArtifactStore, day: date) -> int:
    log = store.current(DECISION_LOG.name, day.isoformat())
    return 0 if log is None else int(log.summary["dagster/row_count"])


def read_day(database: Database, day: date) -> pd.DataFrame:
    """The decisions of a UTC day in time order, as `models.contracts.tables.DecisionLog`, without the deployment's
    probes."""
    start = datetime.combine(day, time(), UTC)
    return decision_table(decisions.read(database, start, start + timedelta(days=1), exclude_callers=[PROBE_CALLER]))


def decision_table(decisions: Iterable[Decision]) -> pd.DataFrame:
    """One row of `models.contracts.tables.DecisionLog` per decision, in the given order."""
    return pd.DataFrame([_row(decision) for decision in decisions], columns=list(_TYPES)).astype(_TYPES)


def log_digest(log: pd.DataFrame) -> str:
    """SHA-256 (hex) of which decisions are in a log. Decisions are never changed, so it stands for their content."""
    return digest_json(log["decision_id"].tolist())


def write_log(log: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Write `LOG_FILE`; returns counts, the share of degraded answers and percentiles of latency in milliseconds."""
    write_table(log, folder / LOG_FILE)
    numbers: dict[str, Any] = {"dagster/row_count": len(log), "callers": int(log["caller"].nunique())}
    if len(log):
        numbers["degraded_share"] = float(log["degraded"].mean())
    latency = log["latency_ms"].dropna()
    if len(latency):
        summary = summarize(latency.tolist())
        numbers |= {"p50_latency_ms": summary.p50_ms, "p95_latency_ms": summary.p95_ms}
    return numbers


def _row(decision: Decision) -> dict[str, Any]:
    return {
        **decision.model_dump(include={*_TEXTS, "time", "degraded"}),
        **decision_features(decision),
        "answered": bool(decision.answer),
        "citations": len(decision.citations),
        "passages": len(decision.ranking),
    }
