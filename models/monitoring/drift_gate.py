"""What drift means for the gate, and the incident that it opens."""

from __future__ import annotations

from datetime import date, timedelta

from sqlalchemy import select

from models.monitoring.drift import PAGE_FILE
from models.monitoring.report import WINDOW_FILE, read_summary
from models.records.database import Database
from models.records.incidents import Incident, open_incident
from models.records.ledger import Ledger
from models.records.tables import IncidentRow
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import DRIFT_REPORT, EVALUATION_SET, OFFLINE_EVALUATION

COUNTS_FOR_DAYS = 7
"""Days for which a drift report counts at the gate: a week, so that traffic of weekdays and weekends is in it."""


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
    evaluation = store.current(OFFLINE_EVALUATION)
    evaluated_on = evaluation.manifest.inputs[EVALUATION_SET] if evaluation is not None else ""
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
