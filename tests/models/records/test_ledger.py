from __future__ import annotations

import re
import signal
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from models.errors import ReleaseError
from models.records.database import Database
from models.records.ledger import Ledger, Release
from tests.databases import RunPython, start_together
from tests.patience import PATIENCE_S
from tests.releases import versions_of

BEGIN = """
import os, signal, sys
from models.records.database import Database
from models.errors import ReleaseError
from models.records.ledger import Ledger
from tests.releases import versions_of
database = Database(sys.argv[1])
ledger = Ledger(database)

def begin(bundle):
    return ledger.begin(versions_of(bundle), actor="test", reason="test")
"""

KILLED_BEFORE_ACTIVATION = (
    BEGIN
    + """
print(begin("b2").release_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
)

KILLED_INSIDE_THE_TRANSACTION = (
    BEGIN
    + """
import models.records.ledger
def kill(row):
    print("nothing", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
models.records.ledger._to_release = kill
begin("b2")
"""
)

RACE = (
    BEGIN
    + """
ledger.current()
print("ready", flush=True)
sys.stdin.readline()
try:
    print(begin(sys.argv[2]).release_id)
except ReleaseError as error:
    print("refused:", error.message)
database.close()
"""
)


def begin(ledger: Ledger, bundle: str, gate_decision_id: str | None = None) -> Release:
    versions = versions_of(bundle, f"mlflow-{bundle}")
    return ledger.begin(versions, actor="ada", reason="the gate passed", gate_decision_id=gate_decision_id)


def release(ledger: Ledger, bundle: str) -> Release:
    return ledger.activate(begin(ledger, bundle).release_id)


def roll_back(ledger: Ledger, to: str | None = None) -> Release:
    return ledger.activate(ledger.begin_rollback(actor="ada", reason="it was worse", to=to).release_id)


def test_an_empty_ledger_has_nothing(database: Database) -> None:
    ledger = Ledger(database)
    assert (ledger.current(), ledger.previous(), ledger.pending(), ledger.history()) == (None, None, [], [])
    assert not ledger.was_rolled_back("b1")
    with pytest.raises(ReleaseError, match="no earlier release"):
        ledger.begin_rollback(actor="ada", reason="")


def test_a_release_serves_once_it_is_activated(database: Database) -> None:
    ledger = Ledger(database)
    gate = ledger.record_gate_decision(
        candidate_version="b1",
        champion_version=None,
        verdict="released",
        checks={"gain": {"value": 0.05, "threshold": 0.01}},
    )
    begun = begin(ledger, "b1", gate_decision_id=gate.decision_id)
    assert re.fullmatch(r"r-\d{8}T\d{6}Z-[0-9a-f]{6}", begun.release_id)
    assert (begun.action, begun.state, begun.activated_at) == ("release", "pending", None)
    assert ledger.current() is None
    assert ledger.pending() == [begun]

    active = ledger.activate(begun.release_id)
    assert active.state == "active"
    assert active.activated_at is not None
    assert active.activated_at >= active.created_at
    assert ledger.current() == active == ledger.get(begun.release_id)
    assert ledger.pending() == []
    assert ledger.previous() is None
    assert active.model_version == "mlflow-b1"
    assert ledger.gate_decisions() == [gate]
    assert gate.checks == {"gain": {"value": 0.05, "threshold": 0.01}}


def test_gate_decisions_are_listed_newest_first(database: Database) -> None:
    ledger = Ledger(database)
    built = [
        ledger.record_gate_decision(candidate_version=bundle, champion_version="b0", verdict="refused", checks={})
        for bundle in ("b1", "b2", "b3")
    ]
    assert ledger.gate_decisions(limit=2) == [built[2], built[1]]


def test_rollbacks_go_further_back_each_time(database: Database) -> None:
    ledger = Ledger(database)
    r1, r2, r3 = (release(ledger, bundle) for bundle in ("b1", "b2", "b3"))
    assert ledger.previous() == r2

    r4 = roll_back(ledger)
    assert (r4.action, r4.bundle_version, r4.model_version) == ("rollback", "b2", "mlflow-b2")
    assert (r4.restores_release_id, r4.previous_release_id) == (r2.release_id, r1.release_id)
    assert ledger.previous() == r1

    r5 = roll_back(ledger)
    assert r5.bundle_version == "b1"
    assert ledger.previous() is None
    with pytest.raises(ReleaseError, match="no earlier release"):
        roll_back(ledger)

    r6 = release(ledger, "b4")
    assert ledger.previous() == r5
    r7 = roll_back(ledger)
    assert (r7.bundle_version, r7.restores_release_id) == ("b1", r5.release_id)
    assert [row.release_id for row in ledger.history()] == [row.release_id for row in (r7, r6, r5, r4, r3, r2, r1)]
    assert [row.release_id for row in ledger.history(limit=2)] == [r7.release_id, r6.release_id]


def test_a_rollback_to_a_named_release(database: Database) -> None:
    ledger = Ledger(database)
    r1, _, r3 = (release(ledger, bundle) for bundle in ("b1", "b2", "b3"))
    abandoned = ledger.abandon(begin(ledger, "b4").release_id)
    for wrong in (abandoned.release_id, "r-none"):
        with pytest.raises(ReleaseError, match="not a release that has served"):
            ledger.begin_rollback(actor="ada", reason="", to=wrong)
    with pytest.raises(ReleaseError, match="is the release that serves"):
        ledger.begin_rollback(actor="ada", reason="", to=r3.release_id)
    assert roll_back(ledger, to=r1.release_id).bundle_version == "b1"
    assert ledger.was_rolled_back("b3")
    assert not ledger.was_rolled_back("b2")


def test_a_bundle_counts_as_rolled_back_until_it_serves_again(database: Database) -> None:
    ledger = Ledger(database)
    release(ledger, "b1")
    release(ledger, "b2")
    begun = ledger.begin_rollback(actor="ada", reason="")
    assert not ledger.was_rolled_back("b2")
    ledger.activate(begun.release_id)
    assert ledger.was_rolled_back("b2")
    assert not ledger.was_rolled_back("b1")
    release(ledger, "b3")
    assert ledger.was_rolled_back("b2")
    again = begin(ledger, "b2")
    assert ledger.was_rolled_back("b2")
    ledger.activate(again.release_id)
    assert not ledger.was_rolled_back("b2")


def test_a_bundle_replaced_by_a_release_was_not_rolled_back(database: Database) -> None:
    ledger = Ledger(database)
    release(ledger, "b1")
    release(ledger, "b2")
    assert not ledger.was_rolled_back("b1")


def test_only_one_release_is_pending(database: Database) -> None:
    ledger = Ledger(database)
    release(ledger, "b1")
    release(ledger, "b2")
    begun = begin(ledger, "b3")
    for second in (lambda: begin(ledger, "b4"), lambda: ledger.begin_rollback(actor="ada", reason="")):
        with pytest.raises(ReleaseError, match="next run repairs it") as caught:
            second()
        assert begun.release_id in caught.value.message
    ledger.abandon(begun.release_id)
    assert begin(ledger, "b4").previous_release_id == ledger.current().release_id  # pyright: ignore[reportOptionalMemberAccess]


def test_activating_and_abandoning_are_final_and_may_be_repeated(database: Database) -> None:
    ledger = Ledger(database)
    active = release(ledger, "b1")
    assert ledger.activate(active.release_id) == active
    with pytest.raises(ReleaseError, match="is active"):
        ledger.abandon(active.release_id)
    abandoned = ledger.abandon(begin(ledger, "b2").release_id)
    assert (abandoned.state, abandoned.activated_at) == ("abandoned", None)
    assert ledger.abandon(abandoned.release_id) == abandoned
    with pytest.raises(ReleaseError, match="is abandoned"):
        ledger.activate(abandoned.release_id)
    with pytest.raises(ReleaseError, match="no release"):
        ledger.activate("r-none")
    assert ledger.current() == active


def test_a_release_names_a_gate_decision_that_exists(database: Database) -> None:
    with pytest.raises(ReleaseError, match="no gate decision g-none"):
        begin(Ledger(database), "b1", gate_decision_id="g-none")
    assert Ledger(database).pending() == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM releases",
        "UPDATE releases SET bundle_version = 'other' WHERE state = 'active'",
        "UPDATE releases SET reason = 'other' WHERE state = 'pending'",
        "UPDATE releases SET state = 'active', activated_at = created_at, actor = 'other' WHERE state = 'pending'",
        "UPDATE releases SET state = 'pending', activated_at = NULL WHERE state = 'active'",
        "UPDATE releases SET state = 'abandoned', activated_at = NULL WHERE state = 'active'",
        "UPDATE releases SET activated_at = created_at WHERE state = 'active'",
    ],
)
def test_the_database_itself_refuses_to_change_history(database: Database, statement: str) -> None:
    ledger = Ledger(database)
    release(ledger, "b1")
    begin(ledger, "b2")
    before = ledger.history()
    with pytest.raises(IntegrityError, match="append-only"), database.session() as session:
        session.execute(text(statement))
    assert ledger.history() == before


def test_the_database_itself_refuses_a_second_pending_row(database: Database) -> None:
    begin(Ledger(database), "b1")
    columns = "action, state, bundle_version, model_version, index_version, corpus_version, model_versions"
    copy = f"{columns}, settings_digest, actor, reason, created_at"
    with pytest.raises(IntegrityError), database.session() as session:
        session.execute(text(f"INSERT INTO releases (release_id, {copy}) SELECT 'r-2', {copy} FROM releases"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_a_process_killed_before_activation_left_can_be_activated(
    database: Database, database_url: str, run_python: RunPython
) -> None:
    ledger = Ledger(database)
    champion = release(ledger, "b1")
    process = run_python(KILLED_BEFORE_ACTIVATION, database_url)
    printed, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL, errors
    release_id = printed.strip()

    assert ledger.current() == champion
    assert [row.release_id for row in ledger.pending()] == [release_id]
    with pytest.raises(ReleaseError, match="repairs it"):
        begin(ledger, "b3")

    completed = ledger.activate(release_id)
    assert ledger.current() == completed
    assert ledger.previous() == champion
    assert ledger.pending() == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_killed_inside_begin_leaves_nothing(
    database: Database, database_url: str, run_python: RunPython
) -> None:
    ledger = Ledger(database)
    champion = release(ledger, "b1")
    process = run_python(KILLED_INSIDE_THE_TRANSACTION, database_url)
    printed, errors = process.communicate(timeout=PATIENCE_S)
    assert (printed, process.returncode) == ("nothing\n", -signal.SIGKILL), errors
    assert ledger.history() == [champion]
    assert release(ledger, "b3") == ledger.current()


def test_of_processes_that_begin_at_once_one_succeeds(
    database: Database, database_url: str, run_python: RunPython
) -> None:
    champion = release(Ledger(database), "b0")
    processes = [run_python(RACE, database_url, f"b{number}") for number in (1, 2)]
    answers = [printed.strip() for printed in start_together(processes)]
    (pending,) = Ledger(database).pending()
    assert answers.count(pending.release_id) == 1
    assert sum("is still pending" in answer for answer in answers) == 1
    assert pending.previous_release_id == champion.release_id


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["release", "rollback", "abandon", "crash"]), max_size=12))
def test_any_history_follows_a_stack_of_bundles(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    records = Database(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'records.db'}")
    records.migrate()
    ledger = Ledger(records)
    # The model: a release pushes, a rollback pops.
    stack: list[str] = []
    left: set[str] = set()
    for number, step in enumerate(steps):
        bundle = f"b{number}"
        if step == "release":
            release(ledger, bundle)
            stack.append(bundle)
        elif step == "abandon":
            ledger.abandon(begin(ledger, bundle).release_id)
        elif step == "crash":
            begin(ledger, bundle)
            (pending,) = ledger.pending()
            ledger.activate(pending.release_id)
            stack.append(bundle)
        elif len(stack) > 1:
            roll_back(ledger)
            left.add(stack.pop())
        else:
            with pytest.raises(ReleaseError):
                ledger.begin_rollback(actor="ada", reason="")
    current, previous = ledger.current(), ledger.previous()
    assert (current.bundle_version if current else None) == (stack[-1] if stack else None)
    assert (previous.bundle_version if previous else None) == (stack[-2] if len(stack) > 1 else None)
    assert {f"b{number}" for number in range(len(steps)) if ledger.was_rolled_back(f"b{number}")} == left
    records.close()
