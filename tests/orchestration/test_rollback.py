"""The rollback, asked for on the command line and in Dagster: the same is done."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from assets.resources import Deployment
from models.records.database import open_database
from models.records.incidents import open_incidents
from models.records.ledger import Ledger
from models.records.mlflow_registry import CHAMPION, Tracking
from models.release.releaser import Releaser
from models.settings import Settings
from orchestration.definitions import defs
from tests.commands import run_command
from tests.deployments import use_home, write_artifact
from tests.releases import versions_of
from tests.service_thread import served

REASON = "it answers worse"


def by_command() -> None:
    done = run_command("rollback", "--reason", REASON, "--json", env=os.environ.copy())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["served"] is True


def by_job() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("rollback")
        config = {"ops": {"restore_previous_release": {"config": {"reason": REASON}}}}
        assert job.execute_in_process(run_config=config, instance=instance).success


def release_twice(deployment: Deployment, tracking: Tracking, ledger: Ledger) -> list[str]:
    """Release two bundles, the second in place of the first; their versions."""
    bundles = []
    for content in (b"first", b"second"):
        bundle = write_artifact(deployment.store(), "release/release_candidate", {}, {"content": content})
        decision = ledger.record_gate_decision(
            candidate_version=bundle.data_version, champion_version=None, verdict="released", checks={}
        )
        versions = versions_of(bundle.data_version, tracking.ensure_version(tracking.model_name, bundle))
        Releaser(ledger, tracking).release(versions, gate_decision_id=decision.decision_id, actor="test", reason="test")
        bundles.append(bundle.data_version)
    return bundles


def serving(settings: Settings) -> dict[str, Any]:
    """The versions of what the running service serves."""
    return httpx.get(f"http://{settings.serving.host}:{settings.serving.port}/health").json()["served"]


@pytest.mark.parametrize("roll_back", [by_command, by_job])
def test_a_rollback_moves_the_ledger_the_aliases_and_the_service_and_opens_an_incident(
    roll_back: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking: Tracking
) -> None:
    monkeypatch.delenv("RERANKOPS_API_KEY", raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        deployment = use_home(
            tmp_path, monkeypatch, SERVING__PORT=str(listener.getsockname()[1]), STORAGE__MLFLOW_URI=tracking.uri
        )
        settings = deployment.settings()
        with open_database(settings) as database:
            ledger = Ledger(database)
            first, second = release_twice(deployment, tracking, ledger)
            with served(deployment, listener):
                assert serving(settings)["bundle_version"] == second
                roll_back()
                assert serving(settings)["bundle_version"] == first
            restored = ledger.current()
            assert restored is not None
            assert (restored.action, restored.bundle_version, restored.reason) == ("rollback", first, REASON)
            assert tracking.alias(CHAMPION) == restored.model_version == "1"
            (incident,) = open_incidents(database)
            assert (incident.kind, incident.evidence["release_id"]) == ("rollback", restored.release_id)
            assert incident.evidence["reason"] == REASON
