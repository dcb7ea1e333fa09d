"""The state of a deployment as one JSON value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from models.contracts.messages import PROBE_CALLER
from models.errors import RerankOpsError
from models.evaluation.report import PAGE
from models.records import decisions
from models.records.database import Database, open_database
from models.records.incidents import open_incidents
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from models.release.releaser import Releaser
from models.serving.client import call_service
from models.serving.objectives import served_latency
from models.settings import Settings
from models.store.artifacts import ArtifactStore
from models.store.asset_names import OFFLINE_EVALUATION

_SERVICE_S = 2.0


def deployment_status(settings: Settings) -> dict[str, Any]:
    """Champion, last gate decision, evaluation by system, objectives with what was served, and open incidents.

    A release that a crash left pending is finished first. What does not exist yet is None or empty.
    """
    with open_database(settings) as database:
        ledger = Ledger(database)
        if ledger.pending():
            Releaser(ledger, Tracking.of(settings), ArtifactStore.of(settings)).complete()
        current = ledger.current()
        served = served_objectives(settings, database)
        incidents = [incident.to_dict() for incident in open_incidents(database)]
    store = ArtifactStore.of(settings)
    gate = store.current("release/gate_decision")
    evaluation = store.current("evaluation/offline_evaluation")
    report = evaluation.read_json("report/evaluation.json") if evaluation else None
    decision = gate.read_json("decision.json") if gate else None
    return {
        "champion": None
        if current is None
        else {
            "release_id": current.release_id,
            "version": current.model_version,
            "bundle_version": current.bundle_version,
            "index_version": current.index_version,
            "corpus_version": current.corpus_version,
            "action": current.action,
        },
        "gate": None
        if decision is None
        else {
            "decision": decision["verdict"],
            "reasons": decision["reasons"],
            "checks": decision["checks"],
            "report": _page(store, decision),
        },
        "evaluation": {} if report is None else report["systems"],
        "gains": {} if report is None else report["gains"],
        "best_without_model": None if report is None else report["best_without_model"],
        "gains_over_first_stage": {} if report is None else report["gains_over_first_stage"],
        "best_first_stage": None if report is None else report["best_first_stage"],
        "pairs": [] if report is None else report["pairs"],
        "power": None if report is None else report["power"],
        "objectives": settings.objectives.model_dump(),
        "served": served,
        "incidents": incidents,
    }


def served_objectives(settings: Settings, database: Database) -> dict[str, Any]:
    """Served latency and error budgets, `from` the running `service` or, where none answers, from the `decisions` of
    the last `objectives.window_minutes`."""
    try:
        objectives = call_service(settings, "GET", "/v1/objectives", timeout_s=_SERVICE_S)
    except RerankOpsError:
        pass  # None runs, or it is not ours to ask.
    else:
        return {"from": "service", **objectives}
    now, window = datetime.now(UTC), timedelta(minutes=settings.objectives.window_minutes)
    stored = decisions.read(database, now - window, now, exclude_callers=[PROBE_CALLER])
    answers = ((decision.stage_ms["total"], decision.degraded) for decision in stored if "total" in decision.stage_ms)
    wanted = settings.objectives
    return {
        "from": "decisions",
        "window_minutes": wanted.window_minutes,
        "p95_objective_ms": wanted.p95_ms,
        "p99_objective_ms": wanted.p99_ms,
        **served_latency(answers, wanted).to_dict(),
    }


def _page(store: ArtifactStore, decision: Mapping[str, Any]) -> str:
    """Where the page of a decision's evaluation is now: the home may have moved since. Empty where it was deleted."""
    version = decision.get("evaluation")
    if version is None:
        return str(decision["report"])
    page = store.open(OFFLINE_EVALUATION, version).folder / PAGE if store.has(OFFLINE_EVALUATION, version) else None
    return page.absolute().as_uri() if page is not None and page.is_file() else ""
