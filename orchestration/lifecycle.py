"""Runs the asset graph in this process, for the command line: the same assets, configuration and instance as the UI."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.settings import Settings
from orchestration.instance import prepare_instance

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry

RELEASED, FAILED, REFUSED = 0, 1, 3
_POLL_S = 0.5

Show = Callable[[str], None]


@dataclass
class Outcome:
    """How a run ended: the exit code, seconds of each step, and what failed with its reason."""

    code: int = RELEASED
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def run_lifecycle(settings: Settings, selection: str | None, show: Show) -> Outcome:
    """Materialize the lifecycle, or what a Dagster selection of it names; `show` takes lines of progress."""
    prepare_instance(settings)
    import dagster as dg

    from orchestration.definitions import defs

    job = defs.resolve_job_def("lifecycle")
    chosen = None
    if selection:
        chosen = sorted(dg.AssetSelection.from_string(selection).resolve(defs.resolve_asset_graph()), key=str)
    outcome, run_id = Outcome(), str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance:
        watcher = _Watcher(instance, run_id, outcome, show)
        watcher.start()
        try:
            result = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                raise_on_error=False,
                asset_selection=chosen,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        finally:
            watcher.finish()
    if not result.success:
        gate_only = set(outcome.failures) <= {"gate", "release__release"}
        outcome.code = REFUSED if gate_only and latest_verdict(settings) == "refused" else FAILED
    return outcome


def latest_verdict(settings: Settings) -> str | None:
    """What the gate said last: released, refused or current; None before the first decision."""
    from models.artifacts import ArtifactStore

    artifact = ArtifactStore(settings.artifact_root, settings.home / "cache").current("release/gate_decision")
    return None if artifact is None else str(artifact.summary["verdict"])


class _Watcher(threading.Thread):
    """Follows the event log of a run while it runs in another thread."""

    def __init__(self, instance: "DagsterInstance", run_id: str, outcome: Outcome, show: Show) -> None:
        super().__init__(daemon=True)
        self._instance, self._run_id, self._outcome, self._show = instance, run_id, outcome, show
        self._ending = threading.Event()
        self._cursor: str | None = None

    def run(self) -> None:
        while not self._ending.wait(_POLL_S):
            self._drain()

    def finish(self) -> None:
        """Stop, after the last events were shown."""
        self._ending.set()
        self.join()
        self._drain()

    def _drain(self) -> None:
        more = True
        while more:
            found = self._instance.get_records_for_run(self._run_id, cursor=self._cursor)
            for record in found.records:
                self._take(record.event_log_entry)
            self._cursor, more = found.cursor, found.has_more and bool(found.records)

    def _take(self, entry: "EventLogEntry") -> None:
        event = entry.dagster_event
        if event is None:
            self._show(entry.user_message)
        elif event.is_step_success and event.step_key:
            self._outcome.seconds[event.step_key] = event.step_success_data.duration_ms / 1000
        elif event.is_step_failure and event.step_key:
            error = event.step_failure_data.error
            cause = error.cause if error is not None and error.cause is not None else error
            described = event.step_failure_data.user_failure_data
            message = (
                described.description if described is not None else cause.message if cause is not None else "failed"
            )
            self._outcome.failures[event.step_key] = (message or "failed").strip()
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed:
                step = "gate" if check.asset_key.path[-1] == "gate_decision" else "/".join(check.asset_key.path)
                line = f"{check.check_name}: {check.description}"
                self._show(f"check failed: {step} {line}")
                if check.blocking:
                    earlier = self._outcome.failures.get(step)
                    self._outcome.failures[step] = f"{earlier}\n{line}" if earlier else line
