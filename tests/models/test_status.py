"""The state of a deployment as one value."""

from __future__ import annotations

import json
from pathlib import Path

from models.database import Database
from models.files import canonical_json
from models.gating import judge
from models.incidents import open_incident
from models.ledger import Ledger
from models.settings import Settings
from models.status import deployment_status
from models.tracking import CHAMPION, Tracking
from tests.models.test_tracking import artifact
from tests.small_bundle import Small, evidence_for, put_in_service, release_facts, small_settings

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
    found = deployment_status(small_settings(tmp_path))
    assert found["champion"] is found["gate"] is found["best_first_stage"] is None
    assert found["evaluation"] == found["gains"] == {}
    assert found["incidents"] == []
    assert found["objectives"]["p95_ms"] > 0
    json.dumps(found)


def test_it_names_the_champion_the_gate_and_every_system(small: Small, tmp_path: Path, tracking: Tracking) -> None:
    settings = settings_of(small, tmp_path)
    database = Database(settings.database_url)
    database.migrate()
    ledger = Ledger(database)
    decision = judge(evidence_for(small, ledger, small.first), settings.gate, settings)
    release = put_in_service(ledger, small.first, "5")
    incident = open_incident(database, "drift", {"share": 0.9})
    database.close()
    gate = small.store.get_or_create(
        "release/gate_decision",
        code_version="tests",
        inputs={},
        settings={},
        build=lambda folder: {"bytes": (folder / "decision.json").write_bytes(canonical_json(decision.to_dict()))},
    )
    small.store.point(gate)
    small.store.point(small.first.evaluation)
    found = deployment_status(settings)
    assert found["champion"] == {
        "release_id": release.release_id,
        "version": "5",
        "bundle_version": small.first.bundle.data_version,
        "index_version": release.index_version,
        "corpus_version": small.artifacts["corpus/passages"].data_version,
        "action": "release",
    }
    assert found["gate"]["decision"] == "released"
    assert {check["name"] for check in found["gate"]["checks"]} >= {"gain", "champion_loss", "p95_ms"}
    assert set(found["evaluation"]) == SYSTEMS
    assert all(0 <= result["nDCG@10"] <= 1 for result in found["evaluation"].values())
    assert found["gains"]["tiered"]["baseline"] == found["best_first_stage"]
    assert [(one["kind"], one["evidence"]) for one in found["incidents"]] == [("drift", {"share": 0.9})]
    assert found["incidents"][0]["id"] == incident.incident_id
    json.dumps(found)


def test_a_release_that_a_crash_left_pending_is_finished_first(
    small: Small, tmp_path: Path, tracking: Tracking
) -> None:
    settings = settings_of(small, tmp_path)
    version = tracking.ensure_version("reranker", artifact(tmp_path, "one"))
    database = Database(settings.database_url)
    database.migrate()
    begun = Ledger(database).begin(**release_facts(small.first, version))
    found = deployment_status(settings)
    assert found["champion"]["release_id"] == begun.release_id
    assert tracking.alias(CHAMPION) == version
    assert Ledger(database).pending() == []
    database.close()
