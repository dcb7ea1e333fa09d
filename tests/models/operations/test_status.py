"""The state of a deployment as one value."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.contracts.messages import PROBE_CALLER
from models.operations.status import deployment_status
from models.records.database import Database
from models.records.incidents import open_incident
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from models.release.gate import decide
from models.release.releaser import bundle_versions
from models.settings import Settings
from models.store.durable_files import canonical_json
from tests.deployments import write_trained
from tests.service_process import free_port
from tests.small_bundle import Small, evidence_for, put_in_service, small_settings
from tests.traffic import decision, record

SYSTEMS = {"bm25", "dense", "hybrid", "lean", "compact", "large", "tiered"}


def settings_of(small: Small, folder: Path) -> Settings:
    """The small deployment's artifacts with records of the test's own."""
    storage = {
        "artifacts": small.settings.artifact_root,
        "database_url": f"sqlite:///{folder / 'records' / 'records.db'}",
        "mlflow_uri": f"sqlite:///{folder / 'mlflow.db'}",
    }
    return small_settings(folder, storage=storage)


def test_an_empty_deployment_has_a_status_and_a_database(tmp_path: Path) -> None:
    result = deployment_status(small_settings(tmp_path))
    assert result["champion"] is result["gate"] is result["best_first_stage"] is None
    assert result["evaluation"] == result["gains"] == {}
    assert result["incidents"] == []
    assert result["objectives"]["p95_ms"] > 0
    json.dumps(result)


def test_it_names_the_champion_the_gate_and_every_system(small: Small, tmp_path: Path, tracking: Tracking) -> None:
    settings = settings_of(small, tmp_path)
    database = Database(settings.database_url)
    database.migrate()
    ledger = Ledger(database)
    decision = decide(evidence_for(small, ledger, small.first), settings)
    release = put_in_service(ledger, small.first, "5")
    incident = open_incident(database, "drift", {"share": 0.9})
    database.close()
    written = canonical_json({**decision.to_dict(), "report": "file:///report"})
    gate = small.store.get_or_create(
        "release/gate_decision",
        code_version="tests",
        inputs={},
        settings={},
        build=lambda folder: {"bytes": (folder / "decision.json").write_bytes(written)},
    )
    small.store.point(gate)
    small.store.point(small.first.evaluation)
    observed = deployment_status(settings)
    assert observed["champion"] == {
        "release_id": release.release_id,
        "version": "5",
        "bundle_version": small.first.bundle.data_version,
        "index_version": release.index_version,
        "corpus_version": small.artifacts["corpus/passages"].data_version,
        "action": "release",
    }
    assert (observed["gate"]["decision"], observed["gate"]["report"]) == ("released", "file:///report")
    assert {check["name"] for check in observed["gate"]["checks"]} >= {"gain", "champion_loss", "p95_ms"}
    assert set(observed["evaluation"]) == SYSTEMS
    assert all(0 <= result["nDCG@10"] <= 1 for result in observed["evaluation"].values())
    assert observed["gains"]["tiered"]["baseline"] == observed["best_first_stage"]
    assert [(item["kind"], item["evidence"]) for item in observed["incidents"]] == [("drift", {"share": 0.9})]
    assert observed["incidents"][0]["id"] == incident.incident_id
    json.dumps(observed)


def test_a_release_that_a_crash_left_pending_is_finished_first(
    small: Small, tmp_path: Path, tracking: Tracking
) -> None:
    settings = settings_of(small, tmp_path)
    version = tracking.ensure_version("reranker", write_trained(tmp_path, "one"))
    database = Database(settings.database_url)
    database.migrate()
    begun = Ledger(database).begin(bundle_versions(small.first.bundle, version), actor="test", reason="test")
    result = deployment_status(settings)
    assert result["champion"]["release_id"] == begun.release_id
    assert Ledger(database).pending() == []
    database.close()


def test_without_a_service_what_was_served_is_read_from_the_decisions(tmp_path: Path) -> None:
    settings = small_settings(
        tmp_path, objectives={"p95_ms": 100, "p99_ms": 1000}, serving={"port": free_port(), "candidates": 8}
    )
    database = Database(settings.database_url)
    database.migrate()
    now = datetime.now(UTC)
    for number, (ms, degraded, caller, minutes) in enumerate(
        [(50.0, False, "key-1", 1), (200.0, True, "key-1", 2), (9e3, True, PROBE_CALLER, 2), (9e3, True, "key-1", 90)]
    ):
        when = now - timedelta(minutes=minutes)
        stored = decision(str(number), when, stage_ms={"total": ms}, degraded=degraded, caller=caller)
        record(database, stored)
    database.close()
    served = deployment_status(settings)["served"]
    assert (served["from"], served["requests"], served["degraded_share"]) == ("decisions", 2, 0.5)
    assert served["p50_ms"] == pytest.approx(50, rel=0.06)
    assert served["p95_ms"] == pytest.approx(200, rel=0.06)
    assert (served["over_p95_share"], served["over_p99_share"]) == (0.5, 0.0)
    assert (served["p95_objective_ms"], served["p99_budget_left"]) == (100, 1.0)
