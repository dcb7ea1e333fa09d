"""Release, rollback and what a crash in between leaves, on a real ledger and a real MLflow."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from models.errors import GateRefused, ReleaseError
from models.records.database import Database
from models.records.incidents import open_incidents
from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import CHALLENGER, CHAMPION, PREVIOUS, Tracking
from models.release.gate import GateDecision
from models.release.releaser import Releaser, bundle_versions
from models.serving.loaded_bundle import load_release
from models.store.artifacts import Artifact, ArtifactStore
from tests.commands import run_command
from tests.deployments import write_trained
from tests.patience import until
from tests.releases import versions_of
from tests.service_process import free_port
from tests.small_bundle import BUDGET_MS, QUESTION, Small

_MOMENT_S = 0.3
"""Time that another process is given for what it must not be able to do."""
CRASHES = ("begun", "activated", "champion moved")


@pytest.fixture
def releaser(ledger: Ledger, tracking: Tracking, tmp_path: Path) -> Releaser:
    """A releaser with the registered versions 1, 2 and 3."""
    for content in ("one", "two", "three"):
        tracking.ensure_version("reranker", write_trained(tmp_path, content))
    return Releaser(ledger, tracking)


def release(releaser: Releaser, version: str) -> Release:
    gate = releaser.ledger.record_gate_decision(
        candidate_version=f"b{version}", champion_version=None, verdict="released", checks={}
    )
    versions = versions_of(f"b{version}", version)
    return releaser.release(versions, gate_decision_id=gate.decision_id, actor="test", reason="test")


def aliases(tracking: Tracking) -> tuple[str | None, str | None, str | None]:
    return tracking.alias(CHAMPION), tracking.alias(PREVIOUS), tracking.alias(CHALLENGER)


def test_a_release_moves_champion_and_previous_and_takes_the_challenger(releaser: Releaser) -> None:
    releaser.tracking.set_alias(CHALLENGER, "1")
    first = release(releaser, "1")
    assert aliases(releaser.tracking) == ("1", None, None)
    assert releaser.ledger.current() == first
    assert (first.state, first.action, first.previous_release_id) == ("active", "release", None)
    releaser.tracking.set_alias(CHALLENGER, "3")
    second = release(releaser, "2")
    assert aliases(releaser.tracking) == ("2", "1", "3"), "another challenger stays"
    assert second.previous_release_id == first.release_id


def test_releasing_the_champion_again_adds_nothing(releaser: Releaser) -> None:
    first = release(releaser, "1")
    assert release(releaser, "1") == first
    assert len(releaser.ledger.history()) == 1


def test_only_a_candidate_that_the_gate_lets_through_is_released(
    releaser: Releaser, small: Small, tracking: Tracking
) -> None:
    candidate = small.first.bundle
    passed = GateDecision("released", (), None, "e")
    record = releaser.ledger.record_gate_decision(
        candidate_version=candidate.data_version, champion_version=None, verdict="released", checks={}
    )
    recorded = {"candidate": candidate.data_version, "verdict": "released", "decision_id": record.decision_id}
    with pytest.raises(GateRefused, match=r"the champion keeps serving\.\nThe gate decided on another candidate"):
        releaser.release_judged(candidate, passed, {**recorded, "candidate": "b0"}, actor="me")
    assert releaser.ledger.history() == []

    champion = releaser.release_judged(candidate, passed, recorded, actor="me")
    assert (champion.bundle_version, champion.gate_decision_id) == (candidate.data_version, record.decision_id)
    assert (champion.actor, champion.reason) == ("me", "gate passed")
    assert tracking.alias(CHAMPION) == champion.model_version == "4", "three were registered before"


def test_rollback_goes_back_step_by_step_and_ends_with_an_error(releaser: Releaser) -> None:
    built = [release(releaser, version) for version in ("1", "2", "3")]
    second = releaser.rollback(actor="me", reason="slow")
    assert (second.bundle_version, second.action, second.restores_release_id) == ("b2", "rollback", built[1].release_id)
    assert (second.actor, second.reason) == ("me", "slow")
    (incident,) = open_incidents(releaser.ledger.database, "rollback")
    assert incident.evidence == {
        "release_id": second.release_id, "bundle_version": "b2", "actor": "me", "reason": "slow",
    }  # fmt: skip
    assert aliases(releaser.tracking) == ("2", "1", None)
    first = releaser.rollback(actor="me", reason="slower")
    assert first.bundle_version == "b1"
    assert aliases(releaser.tracking) == ("1", None, None)
    with pytest.raises(ReleaseError, match="no earlier release"):
        releaser.rollback(actor="me", reason="again")
    assert aliases(releaser.tracking) == ("1", None, None)
    assert releaser.ledger.was_rolled_back("b2")
    assert releaser.ledger.was_rolled_back("b3")


def test_rollback_to_a_named_release(releaser: Releaser) -> None:
    built = [release(releaser, version) for version in ("1", "2", "3")]
    restored = releaser.rollback(actor="me", reason="known good", to=built[0].release_id)
    assert restored.bundle_version == "b1"
    assert aliases(releaser.tracking) == ("1", None, None)
    with pytest.raises(ReleaseError, match="is not a release that has served"):
        releaser.rollback(actor="me", reason="typo", to="r-none")


def test_rollback_of_nothing_is_an_error(releaser: Releaser) -> None:
    with pytest.raises(ReleaseError, match="no earlier release"):
        releaser.rollback(actor="me", reason="x")
    assert open_incidents(releaser.ledger.database) == []


def test_repair_of_nothing_changes_nothing(releaser: Releaser) -> None:
    release(releaser, "1")
    before = aliases(releaser.tracking)
    assert releaser.repair() == []
    assert aliases(releaser.tracking) == before


def test_a_process_killed_at_any_point_is_repaired_by_the_next(releaser: Releaser, tmp_path: Path) -> None:
    release(releaser, "1")
    release(releaser, "2")
    before = ("2", "1", None)
    # The state of each point in files of its own: both databases are SQLite.
    urls = {}
    for action, crash in product(("release", "rollback"), CRASHES):
        folder = tmp_path / action / crash.replace(" ", "-")
        folder.mkdir(parents=True)
        for name in ("records.db", "mlflow.db"):
            _copy_sqlite(tmp_path / name, folder / name)
        urls[action, crash] = [f"sqlite:///{folder / name}" for name in ("records.db", "mlflow.db")]
    for point, both in urls.items():
        killed = run_command(*point, *both, env=os.environ, module="tests.models.release.killed_release")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    for (action, crash), (records, registry) in urls.items():
        after = ("3", "2", None) if action == "release" else ("1", None, None)
        left = {"begun": before, "activated": before, "champion moved": (after[0], *before[1:])}
        database = Database(records)
        again = Releaser(Ledger(database), Tracking(registry, None, "reranker"))
        assert aliases(again.tracking) == left[crash]
        pending, current = again.ledger.pending(), again.ledger.current()
        assert current is not None
        assert (current.bundle_version == "b2") == (crash == "begun"), "the ledger says what serves, not the aliases"
        assert len(pending) == (crash == "begun")
        assert [release.release_id for release in again.repair()] == [release.release_id for release in pending]
        repaired = again.ledger.current()
        assert repaired is not None
        assert (repaired.bundle_version, repaired.state) == ("b3" if action == "release" else "b1", "active")
        assert again.ledger.pending() == again.repair() == []
        assert aliases(again.tracking) == after
        about = [incident.evidence["release_id"] for incident in open_incidents(database)]
        assert about == ([repaired.release_id] if action == "rollback" else [])
        database.close()


def test_the_next_release_repairs_the_one_that_was_left(releaser: Releaser) -> None:
    release(releaser, "1")
    releaser.ledger.begin(versions_of("b2", "2"), actor="killed", reason="killed")
    third = release(releaser, "3")
    assert [row.bundle_version for row in releaser.ledger.history()] == ["b3", "b2", "b1"]
    assert aliases(releaser.tracking) == ("3", "2", None)
    assert releaser.ledger.current() == third


def in_store(releaser: Releaser, folder: Path, contents: Sequence[str]) -> Releaser:
    """Release bundles that are in a store, one after the other."""
    stored = replace(releaser, store=ArtifactStore(str(folder / "artifacts"), folder / "cache"))
    for content in contents:
        bundle = write_trained(folder, content)
        versions = versions_of(bundle.data_version, releaser.tracking.ensure_version("reranker", bundle))
        stored.release(versions, gate_decision_id=None, actor="test", reason="test")  # pyright: ignore[reportArgumentType]
    return stored


def test_a_rollback_works_while_mlflow_is_away_and_the_aliases_follow_later(
    releaser: Releaser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rollback raised, a row stayed pending, and status failed from then on."""
    for version in ("1", "2"):
        release(releaser, version)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = replace(releaser, tracking=Tracking(f"http://127.0.0.1:{free_port()}", None, "reranker"))
    restored = away.rollback(actor="me", reason="slow")
    assert (releaser.ledger.current(), restored.bundle_version, releaser.ledger.pending()) == (restored, "b1", [])
    assert not away.follow()
    assert aliases(releaser.tracking) == ("2", "1", None), "they are behind"
    assert releaser.repair() == []
    assert aliases(releaser.tracking) == ("1", None, None)


def test_a_registry_that_was_lost_gets_its_bundles_again_and_no_number_twice(
    releaser: Releaser, tmp_path: Path
) -> None:
    stored = in_store(releaser, tmp_path, ["one", "two"])
    lost = replace(stored, tracking=Tracking(f"sqlite:///{tmp_path / 'new.db'}", None, "reranker"))
    restored = lost.rollback(actor="me", reason="slow")
    champion = lost.tracking.registered("reranker", alias=CHAMPION)
    assert champion is not None
    assert champion.data_version == restored.bundle_version
    assert int(champion.version) > 2, "2 is another bundle in the ledger"


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_bundle_that_is_gone_or_damaged_is_not_rolled_back_to(
    releaser: Releaser, tmp_path: Path, damage: str
) -> None:
    stored = in_store(releaser, tmp_path, ["one", "two"])
    file = write_trained(tmp_path, "one").folder / "file"
    file.chmod(0o644)
    file.unlink() if damage == "gone" else file.write_text("eno")
    before = stored.ledger.current()
    with pytest.raises(ReleaseError, match="file is missing" if damage == "gone" else "differs from its digest"):
        stored.rollback(actor="me", reason="slow")
    assert (stored.ledger.current(), stored.ledger.pending()) == (before, [])
    assert open_incidents(stored.ledger.database) == []
    stored.ledger.begin_rollback(actor="killed", reason="killed")
    assert stored.repair() == []
    assert stored.ledger.current() == before, "nor by the repair of one that was killed"


def test_aliases_end_where_the_ledger_is_though_another_process_releases_meanwhile(
    releaser: Releaser, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_alias = Tracking.set_alias
    other = threading.Thread(target=release, args=(releaser, "2"))

    def race(tracking: Tracking, alias: str, version: str | None) -> None:
        if (alias, version) == (CHAMPION, "1"):
            monkeypatch.setattr(Tracking, "set_alias", set_alias)
            other.start()
            until(lambda: _current_bundle(releaser) == "b2")
        set_alias(tracking, alias, version)

    monkeypatch.setattr(Tracking, "set_alias", race)
    release(releaser, "1")
    other.join()
    assert aliases(releaser.tracking) == ("2", "1", None)


def _current_bundle(releaser: Releaser) -> str:
    current = releaser.ledger.current()
    return "" if current is None else current.bundle_version


def test_a_process_that_dies_while_it_moves_aliases_leaves_those_of_no_older_release(
    releaser: Releaser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the ledger, another released, and then it moved one alias back and was killed."""
    set_alias = Tracking.set_alias
    other = threading.Thread(target=release, args=(releaser, "2"))

    def die(tracking: Tracking, alias: str, version: str | None) -> None:
        monkeypatch.setattr(Tracking, "set_alias", set_alias)
        other.start()
        until(lambda: _current_bundle(releaser) == "b2")
        other.join(_MOMENT_S)
        set_alias(tracking, alias, version)
        raise KeyboardInterrupt  # As a kill: nothing of what stands behind it happens.

    monkeypatch.setattr(Tracking, "set_alias", die)
    with pytest.raises(KeyboardInterrupt):
        release(releaser, "1")
    other.join()
    assert aliases(releaser.tracking) == ("2", "1", None)


def test_a_release_under_way_is_not_given_up_by_a_process_that_lacks_its_bundle(
    releaser: Releaser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of another home took the row for what a crash had left, did not find the bundle, and gave it up."""
    first = in_store(releaser, tmp_path, ["one"])
    elsewhere = replace(releaser, store=ArtifactStore(str(tmp_path / "elsewhere"), tmp_path / "cache"))
    repairing = threading.Thread(target=elsewhere.repair)
    verify = Artifact.verify

    def verify_while_another_repairs(artifact: Artifact) -> None:
        monkeypatch.setattr(Artifact, "verify", verify)
        repairing.start()
        repairing.join(_MOMENT_S)
        verify(artifact)

    monkeypatch.setattr(Artifact, "verify", verify_while_another_repairs)
    in_store(first, tmp_path, ["two"])
    repairing.join()
    assert [row.state for row in releaser.ledger.history()] == ["active", "active"]


def test_after_a_rollback_the_first_releases_scores_are_served_again(
    ledger: Ledger, tracking: Tracking, small: Small
) -> None:
    releaser = Releaser(ledger, tracking)

    def scores() -> bytes:
        current = ledger.current()
        assert current is not None
        bundle = load_release(small.settings, current)
        ranking = bundle.rank_candidates(QUESTION, bundle.retrieve(QUESTION, 8), BUDGET_MS)
        bundle.close()
        return np.array([(item.index, item.score) for item in ranking.items]).tobytes()

    served = []
    for candidate in (small.first, small.shuffled()):
        gate = ledger.record_gate_decision(
            candidate_version=candidate.bundle.data_version, champion_version=None, verdict="released", checks={}
        )
        version = tracking.ensure_version("reranker", candidate.bundle)
        versions = bundle_versions(candidate.bundle, version)
        releaser.release(versions, gate_decision_id=gate.decision_id, actor="test", reason="test")
        served.append(scores())
    assert served[0] != served[1]
    restored = releaser.rollback(actor="me", reason="it knows nothing")
    assert restored.index_version == small.first.bundle.read_json("bundle.json")["index_version"]
    assert scores() == served[0]


def _copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy, whatever stands in the write-ahead log."""
    import sqlite3

    with sqlite3.connect(source) as reading, sqlite3.connect(target) as writing:
        reading.backup(writing)
    reading.close()
    writing.close()
