"""Which runs are alive. The process of a run holds a lock on a file; whatever ends the process, the lock is gone.

Dagster learns of a killed run worker only from its run launcher. A run of the command line has none, and the default
launcher does not ask: a killed run would stay STARTED, keep its pool slots and stop the queue for good.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from models.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

_DEAD = "The process of this run has ended without a word, as when it is killed or the machine stops."


@contextmanager
def alive(settings: Settings, run_id: str) -> Iterator[None]:
    """Mark a run as alive for as long as the block and this process last."""
    path = _lock(settings, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        # Locked before it has its name, so that nobody ever finds it unlocked while the run lives.
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.rename(temporary, path)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def alone(settings: Settings, told: Callable[[str], None]) -> Iterator[None]:
    """Hold the deployment against other runs for as long as the block and this process last: they share what is
    current, and two at once would mix it. While another run holds it this waits, and tells so once.

    It is held in the home, and in the records database for runs of other homes and hosts that share it.
    """
    with _home_alone(settings, told), _records_alone(settings, told):
        yield


@contextmanager
def _home_alone(settings: Settings, told: Callable[[str], None]) -> Iterator[None]:
    path = settings.home / "dagster" / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode() or "unknown"
            told(f"another run works in {settings.home} (process {holder}); this one waits for its end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def _records_alone(settings: Settings, told: Callable[[str], None]) -> Iterator[None]:
    from models.records.database import DatabaseError, open_database

    def waits() -> None:
        told(f"a run of another home works with {database.name}; this one waits for its end")

    with ExitStack() as held:
        try:
            database = held.enter_context(open_database(settings))
            held.enter_context(database.lock("run", waits=waits))
        except DatabaseError as error:
            # The first step that needs the database says so, and is tried again by its own rules.
            told(f"runs of other homes are not looked for: {error.message}")
        yield


def fail_orphaned_runs(instance: "DagsterInstance", settings: Settings) -> list[str]:
    """Mark the runs whose process is gone as failed, and free the pool slots of all ended runs; returns their ids.

    A run that never had a lock, as one that waits in the queue, is left alone.
    """
    import dagster as dg

    states = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
    orphaned = []
    for run in instance.get_runs(dg.RunsFilter(statuses=states)):
        if _is_dead(_lock(settings, run.run_id)):
            instance.report_run_failed(run, _DEAD)
            orphaned.append(run.run_id)
    free_slots(instance)
    for run_id in orphaned:
        _lock(settings, run_id).unlink(missing_ok=True)
    return orphaned


def free_slots(instance: "DagsterInstance") -> None:
    """Free the pool slots that runs which have ended, or were deleted, still hold."""
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        for run_id in storage.get_concurrency_run_ids():
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                storage.free_concurrency_slots_for_run(run_id)


def _is_dead(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def _lock(settings: Settings, run_id: str) -> Path:
    return settings.home / "dagster" / "running" / f"{run_id}.lock"
