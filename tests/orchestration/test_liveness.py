"""Runs whose process was killed, with real processes, a real instance and real pools."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from models.settings import ROOT, Settings, load_settings
from orchestration.instance import prepare_instance
from orchestration.liveness import alive, alone, fail_orphaned_runs
from tests.patience import PATIENCE_S, until

WAITING = """
    import sys, time
    from pathlib import Path
    import dagster as dg
    from orchestration.executor import one_process

    @dg.op(pool="models")
    def work() -> None:
        if "wait" in sys.argv:
            Path("started").touch()
            time.sleep(600)

    @dg.job(executor_def=one_process)
    def training() -> None:
        work()

    if __name__ == "__main__":
        with dg.DagsterInstance.get() as instance:
            done = dg.execute_job(dg.reconstructable(training), instance)
            print(done.run_id, done.success)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that it is put back
    (tmp_path / "waiting.py").write_text(textwrap.dedent(WAITING))
    settings = Settings()
    prepare_instance(settings)
    return settings


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        yield instance


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "waiting.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, "it ended before it began"
        time.sleep(0.05)


def states(instance: dg.DagsterInstance) -> list[dg.DagsterRunStatus]:
    return [run.status for run in instance.get_runs()]


def holders(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.event_log_storage.get_concurrency_info("models").active_run_ids)


def test_a_killed_run_is_marked_and_its_pool_slot_freed(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    process = start(tmp_path, "wait")
    wait_for(tmp_path / "started", process)
    (run,) = instance.get_runs()
    assert (run.status, holders(instance)) == (dg.DagsterRunStatus.STARTED, {run.run_id})
    assert fail_orphaned_runs(instance, settings) == [], "it lives"

    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (states(instance), holders(instance)) == ([dg.DagsterRunStatus.STARTED], {run.run_id}), "nobody told Dagster"

    assert fail_orphaned_runs(instance, settings) == [run.run_id]
    assert (states(instance), holders(instance)) == ([dg.DagsterRunStatus.FAILURE], set())
    assert list((settings.home / "dagster" / "running").iterdir()) == []
    assert fail_orphaned_runs(instance, settings) == []
    told, _ = start(tmp_path).communicate(timeout=PATIENCE_S)
    assert told.split()[1] == "True", "the next run gets the slot"


def test_the_slot_of_an_ended_or_deleted_run_is_freed(settings: Settings, instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("models")
    storage.claim_concurrency_slot("models", "00000000-0000-0000-0000-000000000000", "work")
    assert holders(instance)
    fail_orphaned_runs(instance, settings)
    assert not holders(instance)


def test_a_run_without_a_lock_is_left_alone(settings: Settings, instance: dg.DagsterInstance) -> None:
    @dg.job
    def queued() -> None:
        """Nothing."""

    run = instance.create_run_for_job(queued, status=dg.DagsterRunStatus.STARTED)
    assert fail_orphaned_runs(instance, settings) == []
    with alive(settings, run.run_id):
        assert fail_orphaned_runs(instance, settings) == []
    assert states(instance) == [dg.DagsterRunStatus.STARTED]


def test_a_second_run_in_a_home_says_that_it_waits_and_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once mixed what is current."""
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path))
    said, inside = [], threading.Event()
    waits = threading.Event()

    def told(line: str) -> None:
        said.append(line)
        waits.set()

    def second() -> None:
        with alone(Settings(), told):
            inside.set()

    with alone(Settings(), told):
        assert said == []
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(PATIENCE_S)
        assert not inside.wait(0.05)
    assert inside.wait(PATIENCE_S)
    thread.join()
    assert said == [f"another run works in {tmp_path} (process {os.getpid()}); this one waits for its end"]


def test_a_run_that_waits_for_another_can_be_ended(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """It went on waiting when it was told to end, and did its work when its turn came."""
    with alone(settings, pytest.fail):
        process = start(tmp_path, "wait")
        until(lambda: any("waits for its end" in entry.user_message for entry in logged(instance)))
        (run,) = instance.get_runs()
        instance.report_run_canceling(run)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=PATIENCE_S)
    assert "False" in told
    assert states(instance) == [dg.DagsterRunStatus.CANCELED]
    assert not (tmp_path / "started").exists()


def logged(instance: dg.DagsterInstance) -> list[dg.EventLogEntry]:
    return [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]


def test_a_run_of_another_home_with_the_same_database_waits(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each home had a lock of its own."""
    monkeypatch.setenv("RERANKOPS_STORAGE__DATABASE_URL", database_url)
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path / "first"))
    settings = load_settings()
    inside, said = threading.Event(), queue.Queue[str]()

    def run_second() -> None:
        with alone(settings, said.put):
            said.put("works")
            inside.set()

    with alone(settings, pytest.fail):
        monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path / "second"))
        thread = threading.Thread(target=run_second)
        thread.start()
        assert "a run of another home works with" in said.get(timeout=PATIENCE_S)
        assert not inside.wait(0.05)
    assert inside.wait(PATIENCE_S)
    thread.join()
