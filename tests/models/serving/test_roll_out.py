"""Rolling a release out to a running service, over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from assets.resources import Deployment
from models.contracts.messages import PROBE_CALLER
from models.errors import ReleaseError
from models.monitoring.decision_log import read_day
from models.records import decisions
from models.records.database import open_database
from models.records.incidents import open_incidents
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from models.serving.api_keys import caller_name, service_key
from models.serving.client import call_service
from models.serving.last_releases import LastReleases
from models.serving.roll_out import roll_back, roll_out
from tests import traffic
from tests.deployments import use_home, write_artifact
from tests.service_thread import served

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as built:
        built.bind(("127.0.0.1", 0))
        yield built


@pytest.fixture
def deployment(listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.delenv("RERANKOPS_API_KEY", raising=False)
    return use_home(tmp_path, monkeypatch, SERVING__PORT=str(listener.getsockname()[1]))


def test_golden_queries_are_asked_and_are_no_traffic(deployment: Deployment, listener: socket.socket) -> None:
    database = deployment.database()
    release = traffic.release(deployment.store(), Ledger(database), queries=5, best="p1")
    with served(deployment, listener) as writer:
        state = roll_out(deployment.settings(), deployment.store(), database)
        assert (state.served_release, state.golden_queries, state.golden_agree) == (release.release_id, 1, True)
        assert state.complete
        assert 0 < state.p50_ms <= state.p95_ms
        call_service(deployment.settings(), "POST", "/v1/answer", {"query": "how is the loom oiled"})
        assert writer.flush()
    stored = {item.caller: item.query for item in decisions.read(database, BEGINNING, END)}
    key, _ = service_key(deployment.settings().home)
    assert stored.keys() == {PROBE_CALLER, caller_name(key)}
    assert read_day(database, datetime.now(UTC).date())["query"].tolist() == ["how is the loom oiled"]


def test_an_answer_that_is_not_the_golden_one_is_told(deployment: Deployment, listener: socket.socket) -> None:
    database = deployment.database()
    traffic.release(deployment.store(), Ledger(database), queries=5, best="another")
    with served(deployment, listener):
        state = roll_out(deployment.settings(), deployment.store(), database)
        assert (state.golden_agree, state.complete) == (False, False)


def test_without_a_service_it_says_so(deployment: Deployment) -> None:
    """The port is taken, and nothing listens on it."""
    database = deployment.database()
    release = traffic.release(deployment.store(), Ledger(database), queries=5)
    state = roll_out(deployment.settings(), deployment.store(), database)
    assert (state.release_id, state.served_release, state.golden_queries) == (release.release_id, None, 0)
    assert not state.complete
    assert "no service answers at http://127.0.0.1" in state.message
    assert list(decisions.read(database, BEGINNING, END)) == []


def test_before_the_first_release_there_is_nothing_to_roll_out(deployment: Deployment) -> None:
    with pytest.raises(ReleaseError, match="no release to serve"):
        roll_out(deployment.settings(), deployment.store(), deployment.database())


def test_without_a_service_a_rollback_restores_what_the_next_one_serves(
    deployment: Deployment, tracking: Tracking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The port is taken, and nothing listens on it."""
    monkeypatch.setenv("RERANKOPS_STORAGE__MLFLOW_URI", tracking.uri)
    tracking.ensure_version(tracking.model_name, write_artifact(deployment.store(), "release/release_candidate", {}))
    with open_database(deployment.settings()) as database:
        first = traffic.release(deployment.store(), Ledger(database), queries=5)
        traffic.release(deployment.store(), Ledger(database), queries=5, seed=1)
        last = LastReleases.of(deployment.settings())
        last.keep(Ledger(database))
        done = roll_back(deployment.settings(), deployment.store(), database, actor="ann", reason="worse")
        assert done.seconds is None
        assert done.release == Ledger(database).current()
        assert (done.release.bundle_version, done.release.actor) == (first.bundle_version, "ann")
        with pytest.raises(ReleaseError, match="no earlier release"):
            roll_back(deployment.settings(), deployment.store(), database, actor="ann", reason="worse")
        assert len(open_incidents(database)) == 1
        assert last.read() == [done.release], "nor does a service bring it back that starts while the database is away"
