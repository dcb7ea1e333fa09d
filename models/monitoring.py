# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false
"""Monitoring: a day's decisions as a table, the window they are compared with, and what follows when they drifted.

Answers are only comparable when one bundle gave them, since each bundle has its own scale of scores. So a day is judged
on the answers of the bundle that gave most of them, and so is the window before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from sqlalchemy import select

from models import decisions
from models.artifacts import Artifact, ArtifactStore
from models.bundle import BUNDLE
from models.calibration import probability
from models.contracts import PROBE_CALLER, Decision
from models.contracts_cache import require_contracts
from models.corpus import write_table
from models.database import Database, IncidentRow
from models.drift import (
    FEATURES,
    PAGE_FILE,
    SUMMARY_FILE,
    DriftSummary,
    decision_features,
    drift_report,
    features_from_rankings,
)
from models.files import canonical_json, digest_json
from models.incidents import Incident, open_incident
from models.latency import summarize
from models.ledger import Ledger
from models.settings import MonitoringSettings

DECISION_LOG = "monitoring/decision_log"
DRIFT_REPORT = "monitoring/drift_report"
_BUNDLE = "release/release_candidate"
_EVALUATION = "evaluation/offline_evaluation"
_EVALUATION_SET = "corpus/evaluation_set"
LOG_FILE = "decision_log.parquet"
WINDOW_FILE = "window.json"
"""What a drift report compared: day, bundle, reference and how many decisions were left out."""

COUNTS_FOR_DAYS = 7
"""Days for which a drift report counts at the gate: a week, so that traffic of weekdays and weekends is in it."""

_TEXTS = (
    "decision_id", "trace_id", "endpoint", "caller", "experiment_arm", "release_id", "model_version", "index_version",
    "corpus_version", "degraded_reason", "query",
)  # fmt: skip
_COUNTS = ("citations", "passages", "query_characters", "query_words")
_NUMBERS = (
    "top_score", "mean_top10_score", "score_gap", "top_dense_score", "top_lexical_score", "share_scored_by_large",
    "latency_ms",
)  # fmt: skip
_TYPES = {
    **dict.fromkeys(_TEXTS, "str"),
    "time": "datetime64[us, UTC]",
    **dict.fromkeys(("degraded", "answered"), "bool"),
    **dict.fromkeys(_COUNTS, "int64"),
    **dict.fromkeys(_NUMBERS, "float64"),
}


def read_day(database: Database, day: date) -> pd.DataFrame:
    """The decisions of a UTC day in time order, as `models.contracts.DecisionLog`, without the deployment's probes."""
    start = datetime.combine(day, time(), UTC)
    return decision_table(decisions.read(database, start, start + timedelta(days=1), exclude_callers=[PROBE_CALLER]))


def decision_table(found: Iterable[Decision]) -> pd.DataFrame:
    """One row of `models.contracts.DecisionLog` per decision, in the given order."""
    return pd.DataFrame([_row(decision) for decision in found], columns=list(_TYPES)).astype(_TYPES)


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


@dataclass(frozen=True)
class Windows:
    """The two windows of a drift report: the day's answers of one bundle, and what they are held against.

    `bundle_version` is empty on a day without answers of a known release; `releases` are those that it served under.
    `reference` are the artifacts that the reference window is read from: the evaluation and the evaluation set of the
    bundle, or the logs of earlier days.
    """

    day: date
    kind: Literal["evaluation", "previous_days"]
    log: Artifact
    bundle_version: str
    releases: tuple[str, ...]
    reference: Mapping[str, Artifact] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, str]:
        """What the report depends on besides the day's log: data versions by name."""
        return {
            _BUNDLE: self.bundle_version,
            **{name: artifact.data_version for name, artifact in self.reference.items()},
        }

    @property
    def evaluation_set(self) -> str:
        """Version of the evaluation set that the traffic is compared with; empty for a reference of traffic."""
        return self.reference[_EVALUATION_SET].data_version if _EVALUATION_SET in self.reference else ""

    def current_features(self) -> pd.DataFrame:
        """`models.drift.FEATURES` of the day's answers of this bundle."""
        return _log_features(self.log, self.releases)

    def reference_features(self) -> pd.DataFrame:
        """`models.drift.FEATURES` of the reference window; empty where there is none."""
        if _EVALUATION in self.reference:
            return _evaluation_features(self.reference[_EVALUATION], self.reference[_EVALUATION_SET])
        logs = [_log_features(log, self.releases) for log in self.reference.values()]
        return pd.concat(logs, ignore_index=True) if logs else self.current_features().iloc[:0]


def find_windows(
    store: ArtifactStore, ledger: Ledger, log: Artifact, day: date, settings: MonitoringSettings
) -> Windows:
    """What to compare on a day. Raises `ContractError` if a table of the reference breaks its contract."""
    before: dict[str, Artifact] = {}
    if settings.reference == "previous_days":
        days = [(day - timedelta(days=back)).isoformat() for back in range(settings.reference_days, 0, -1)]
        found = {name: store.current(DECISION_LOG, name) for name in days}
        before = {f"{DECISION_LOG}/{name}": artifact for name, artifact in found.items() if artifact is not None}
    for artifact in before.values():
        require_contracts(store, artifact)
    bundles = _bundles(ledger, [log, *before.values()])
    bundle = _busiest(bundles, log)
    reference = before
    if settings.reference == "evaluation" and bundle:
        versions = store.open(_BUNDLE, bundle).read_json(BUNDLE)["versions"]
        reference = {
            _EVALUATION: store.open(_EVALUATION, versions["offline_evaluation"]),
            _EVALUATION_SET: store.open(_EVALUATION_SET, versions["evaluation_set"]),
        }
        require_contracts(store, reference[_EVALUATION_SET])
    releases = tuple(release_id for release_id, served in bundles.items() if served == bundle)
    return Windows(day, settings.reference, log, bundle, releases, reference)


def write_report(windows: Windows, settings: MonitoringSettings, folder: Path) -> dict[str, Any]:
    """Write the summary, the windows and, if judged, Evidently's page; returns the numbers to plot.

    A day that is not judged has counts of rows only. A column's number is `p_value_<column>` or `distance_<column>`,
    after its method.
    """
    current = windows.current_features()
    summary = drift_report(
        windows.reference_features(),
        current,
        folder / PAGE_FILE,
        min_rows=settings.min_decisions,
        max_rows=settings.max_rows,
    )
    left_out = int(windows.log.summary["dagster/row_count"]) - len(current)
    facts = {
        "day": windows.day.isoformat(),
        "reference": windows.kind,
        "bundle_version": windows.bundle_version,
        "evaluation_set": windows.evaluation_set,
        "releases": list(windows.releases),
        "left_out": left_out,
    }
    (folder / SUMMARY_FILE).write_bytes(canonical_json(summary.to_dict()))
    (folder / WINDOW_FILE).write_bytes(canonical_json(facts))
    numbers: dict[str, Any] = {
        "reference_rows": summary.reference_rows,
        "current_rows": summary.current_rows,
        "left_out_rows": left_out,
    }
    if summary.share is not None:
        numbers |= {
            "drift_share": summary.share,
            "columns_compared": len(summary.columns),
            "columns_drifted": len(summary.drifted),
        }
    for name, column in summary.columns.items():
        numbers[f"{'p_value' if column.method == 'ks' else 'distance'}_{name}"] = column.statistic
    return numbers


def read_summary(report: Artifact) -> DriftSummary:
    """The summary of a drift report."""
    return DriftSummary.from_dict(report.read_json(SUMMARY_FILE))


def columns_table(summary: DriftSummary) -> str:
    """The compared and the excluded columns as a Markdown table; of a day that is not judged, the reason as well."""
    rows = [
        f"| {name} | {column.method} | {column.statistic:.4g} | {column.threshold:.4g} | "
        f"{'yes' if column.drifted else 'no'} |"
        for name, column in summary.columns.items()
    ]
    rows += [f"| {name} | not compared: {reason} | | | |" for name, reason in summary.excluded.items()]
    table = "\n".join(["| column | method | statistic | threshold | drifted |", "|---|---|---|---|---|", *rows])
    return table if summary.judged else f"Not judged. {summary.reason}\n\n{table}"


def open_drift_incident(database: Database, report: Artifact, limit: float) -> Incident | None:
    """Open the incident of a day whose drift is above `limit`; None where there is nothing to open.

    One a day: the running day is reported again and again, and an incident that a person has closed stays closed.
    """
    summary, window = read_summary(report), report.read_json(WINDOW_FILE)
    key = f"drift:{window['day']}"
    if summary.share is None or summary.share <= limit:
        return None
    with database.session(read_only=True) as session:
        if session.scalars(select(IncidentRow.incident_id).where(IncidentRow.dedupe_key == key)).first() is not None:
            return None
    evidence = {
        "day": window["day"],
        "drift_share": summary.share,
        "limit": limit,
        "columns": list(summary.drifted),
        "bundle_version": window["bundle_version"],
        "reference": window["reference"],
        "report": str(report.path(PAGE_FILE)),
    }
    return open_incident(database, "drift", evidence, dedupe_key=key)


def drift_share_for_gate(store: ArtifactStore, ledger: Ledger, today: date) -> float | None:
    """Share of drifted columns in the newest report that speaks of what would be released; None where none does.

    A report counts when it
    - was judged: a day with few decisions says nothing, and the judged day before it still does;
    - is at most `COUNTS_FOR_DAYS` days old;
    - is about the bundle that serves: another one's answers are no evidence about it;
    - was compared with the evaluation set that the latest offline evaluation used, if with any. A candidate that was
      evaluated on another set, such as one extended by the new kind of queries, answers to that set: this is how a
      lasting change of traffic ends without anyone lifting gate.max_drift_share.
    """
    current = ledger.current()
    if current is None:
        return None
    evaluation = store.current(_EVALUATION)
    evaluated_on = evaluation.manifest.inputs[_EVALUATION_SET] if evaluation is not None else ""
    for back in range(COUNTS_FOR_DAYS + 1):
        report = store.current(DRIFT_REPORT, (today - timedelta(days=back)).isoformat())
        if report is None:
            continue
        window = report.read_json(WINDOW_FILE)
        if window["bundle_version"] != current.bundle_version:
            continue
        if window["evaluation_set"] and evaluated_on and window["evaluation_set"] != evaluated_on:
            continue
        share = read_summary(report).share
        if share is not None:
            return share
    return None


def _row(decision: Decision) -> dict[str, Any]:
    return {
        **decision.model_dump(include={*_TEXTS, "time", "degraded"}),
        **decision_features(decision),
        "answered": bool(decision.answer),
        "citations": len(decision.citations),
        "passages": len(decision.ranking),
    }


def _bundles(ledger: Ledger, logs: Iterable[Artifact]) -> dict[str, str]:
    """The bundle behind each release that answered in `logs`; releases that the ledger does not know are left out."""
    ids = {release_id for log in logs for release_id in log.read_table(LOG_FILE, ["release_id"])["release_id"]}
    found = {release_id: ledger.get(release_id) for release_id in sorted(ids)}
    return {release_id: release.bundle_version for release_id, release in found.items() if release is not None}


def _busiest(bundles: Mapping[str, str], log: Artifact) -> str:
    """The bundle that gave most answers of a log; empty if no known release gave any."""
    answered = log.read_table(LOG_FILE, ["release_id"])["release_id"].map(bundles).dropna()
    return min(answered.mode(), default="")


def _log_features(log: Artifact, releases: Iterable[str]) -> pd.DataFrame:
    table = log.read_table(LOG_FILE)
    table = table[table["release_id"].isin(list(releases))]
    features = table.rename(columns={"decision_id": "row_id"}).loc[:, list(FEATURES)].reset_index(drop=True)
    return features.astype({name: "float64" for name in FEATURES if name not in ("row_id", "query")})


def _evaluation_features(evaluation: Artifact, evaluation_set: Artifact) -> pd.DataFrame:
    """Features of the tiered system on the test queries, as if they had been asked."""
    queries = evaluation_set.read_table("queries.parquet")
    rankings = evaluation.read_table("rankings.parquet")
    tiered = rankings[rankings["system"] == "tiered"]
    # The evaluation keeps logits, the service answers with probabilities.
    tiered = tiered.assign(score=probability(tiered["score"].to_numpy(dtype="float64")))
    return features_from_rankings(queries[queries["split"] == "test"], tiered)
