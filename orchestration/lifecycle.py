"""Runs the asset graph for the command line: the same job, configuration and instance as in Dagster's UI.

The run works in a thread, the caller's thread follows its event log. So an interrupt is noticed at once, also while a
library computes, and Dagster does not take it for a step that failed and has retries left.
"""

import difflib
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from models.errors import RerankOpsError
from models.settings import Settings
from orchestration.instance import prepare_instance
from orchestration.liveness import alive, alone, fail_orphaned_runs, free_slots

if TYPE_CHECKING:
    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

RELEASED, FAILED, REFUSED = 0, 1, 3
_POLL_S = 0.5
_EXAMPLE_LINES = 7
_STORAGE = re.compile(
    r"\[Errno (?:1|13|27|28|30|122)\]|database or disk is full|readonly database|unable to open database|disk I/O error"
)
"""Of errors that speak of a place where nothing can be written: no fault of ours, and said in full."""


class Watch(Protocol):
    """Someone who wants to see a run."""

    def started(self, step: str) -> None:
        """A step has begun."""

    def said(self, line: str) -> None:
        """A step, or the run, has something to say."""

    def ended(self, step: str) -> None:
        """A step has ended, one way or the other."""


@dataclass
class Outcome:
    """How a run ended.

    `verdict` is released, current (nothing to release), made (the selection has no release), refused or failed;
    `seconds` is the time of each step; `failures` says of each asset or step what went wrong.
    """

    run_id: str
    verdict: str = "failed"
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The exit code of the command line."""
        return {"refused": REFUSED, "failed": FAILED}.get(self.verdict, RELEASED)


def run_lifecycle(settings: Settings, selection: str | None, watch: Watch) -> Outcome:
    """Materialize the lifecycle, or what a Dagster selection names of it.

    Raises `RerankOpsError` for a selection of nothing. When the caller's thread is interrupted, the run is marked as
    canceled and the exception goes on; the thread of the run then works until the process ends.
    """
    prepare_instance(settings)
    import dagster as dg

    from orchestration.definitions import defs

    job = defs.resolve_job_def("lifecycle")
    chosen, left_out = select_assets(defs, job, selection)
    if left_out:
        watch.said(f"left out, as they are made per day in Dagster: {', '.join(left_out)}")
    outcome = Outcome(str(uuid.uuid4()))
    with alone(settings, watch.said), dg.DagsterInstance.get() as instance, alive(settings, outcome.run_id):
        for run_id in fail_orphaned_runs(instance, settings):
            watch.said(f"run {run_id} was killed; it is marked as failed, and this run goes on where it stopped")
        follower = _Follower(instance, outcome, watch)

        def execute() -> None:
            result = job.execute_in_process(
                instance=instance,
                run_id=outcome.run_id,
                raise_on_error=False,
                asset_selection=chosen,
                run_config={"loggers": {"console": {"config": {"log_level": "INFO"}}}},
            )
            follower.success = result.success

        follower.follow(execute)
    outcome.verdict = _verdict(settings, follower, chosen)
    return outcome


def select_assets(
    defs: "dg.Definitions", job: "dg.JobDefinition", selection: str | None
) -> tuple[list["dg.AssetKey"] | None, list[str]]:
    """The keys of `job` that a Dagster selection names, and the names of those that are not in it; None is all.

    Raises `RerankOpsError` for an unknown name, a selection that cannot be read, or one of nothing.
    """
    import dagster as dg

    if selection is None:
        return None, []
    graph = defs.resolve_asset_graph()
    names = {key.to_user_string(): key for key in graph.get_all_asset_keys()}
    groups = {str(graph.get(key).group_name) for key in names.values()}
    try:
        # Dagster's parser warns about a call of its own, and takes a warning that is an error for a bad selection.
        with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
            selected = {key.to_user_string() for key in dg.AssetSelection.from_string(selection).resolve(graph)}
    except dg.DagsterError as error:
        raise _no_selection(selection, names, groups, "is no selection that Dagster understands") from error
    of_job = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    if not selected:
        raise _no_selection(selection, names, groups, "selects no asset")
    if not selected & of_job:
        raise RerankOpsError(
            f"--select {selection}: {', '.join(sorted(selected))} is not part of the lifecycle",
            "It is made for one day at a time: materialize that day's partition in Dagster, `rerankops dev`.",
        )
    return [names[name] for name in sorted(selected & of_job)], sorted(selected - of_job)


def _no_selection(selection: str, names: Iterable[str], groups: set[str], what: str) -> RerankOpsError:
    noun = selection.rpartition(":")[2].strip("+*\"' ")
    near = [name for name in names if name.rpartition("/")[2] == noun] or difflib.get_close_matches(noun, [*names], n=3)
    examples = 'Name an asset (corpus/passages), it with all that is upstream (+key:"index/candidates"), or a group'
    hint = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"{examples}: {', '.join(f'group:{g}' for g in sorted(groups))}."
    )
    return RerankOpsError(f"--select {selection}: {what}", hint)


def latest_verdict(settings: Settings) -> str | None:
    """What the gate said last: released, refused or current; None before the first decision."""
    from models.store.artifacts import ArtifactStore

    artifact = ArtifactStore.of(settings).current("release/gate_decision")
    return None if artifact is None else str(artifact.summary["verdict"])


def _verdict(settings: Settings, follower: "_Follower", chosen: list["dg.AssetKey"] | None) -> str:
    from assets import keys

    if follower.success:
        releases = chosen is None or keys.RELEASE in chosen
        return (latest_verdict(settings) or "made") if releases else "made"
    return "refused" if follower.refused and not follower.broken else "failed"


class _Follower:
    """Follows the event log of a run while it works in a thread."""

    def __init__(self, instance: "dg.DagsterInstance", outcome: Outcome, watch: Watch) -> None:
        self._instance, self._outcome, self._watch = instance, outcome, watch
        self._cursor: str | None = None
        self.success = False
        self.refused = False
        """The gate refused."""
        self.broken = False
        """Something else failed."""

    def follow(self, execute: Callable[[], None]) -> None:
        """Run `execute` in a thread to its end, and raise what it raised."""
        raised: list[BaseException] = []

        def work() -> None:
            try:
                execute()
            except BaseException as error:
                raised.append(error)

        worker = threading.Thread(target=work, name="run", daemon=True)
        try:
            worker.start()
            while worker.is_alive():
                worker.join(_POLL_S)
                self._drain()
            self._drain()
        except BaseException:
            self._cancel()
            raise
        if raised:
            raise raised[0]

    def _cancel(self) -> None:
        run = self._instance.get_run_by_id(self._outcome.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, "Interrupted on the command line.")
        free_slots(self._instance)

    def _drain(self) -> None:
        more = True
        while more:
            batch = self._instance.get_records_for_run(self._outcome.run_id, cursor=self._cursor)
            for record in batch.records:
                self._take(record.event_log_entry)
            self._cursor, more = batch.cursor, batch.has_more and bool(batch.records)

    def _take(self, entry: "dg.EventLogEntry") -> None:
        event = entry.dagster_event
        if event is None:
            self._watch.said(entry.user_message)
            return
        step = event.step_key or ""
        if event.is_step_start:
            self._watch.started(step)
        elif event.is_step_success:
            self._outcome.seconds[step] = event.step_success_data.duration_ms / 1000
            self._watch.ended(step)
        elif event.is_step_up_for_retry:
            self._watch.said(f"{step} failed and is tried again: {_explain(event.step_retry_data.error)}")
        elif event.is_step_failure:
            self._watch.ended(step)
            self._step_failed(step, event.step_failure_data)
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            self._checked(event.asset_check_evaluation_data)
        elif event.is_engine_event and step and "pool" in event.engine_event_data.metadata:
            self._watch.said(f"{step} waits for another run: {event.message}")
        elif event.is_run_failure and not self._outcome.failures:
            self._fail("run", _explain(event.job_failure_data.error) or event.message or "failed")

    def _step_failed(self, step: str, data: Any) -> None:
        described = data.user_failure_data
        if data.error is not None and data.error.cls_name == "DagsterAssetCheckFailedError":
            return  # Its checks have told already.
        if described is None:
            self._fail(step, _explain(data.error))
        elif "refused" in described.metadata:
            self.refused = True
            self._add(step, described.description or "refused")
        else:
            self._fail(step, described.description or _explain(data.error))

    def _checked(self, check: Any) -> None:
        if check.passed:
            return
        asset = check.asset_key.to_user_string()
        line = f"{check.check_name}: {check.description}"
        self._watch.said(f"check failed: {asset} {line}")
        if not check.blocking or check.severity.value != "ERROR":
            return
        if asset == "release/gate_decision":
            self.refused = True
            self._add(asset, line)
        else:
            examples = check.metadata.get("examples")
            rows = str(examples.value).splitlines()[:_EXAMPLE_LINES] if examples is not None else []
            self._fail(asset, "\n".join([line, *rows]))

    def _fail(self, where: str, why: str) -> None:
        self.broken = True
        self._add(where, why)

    def _add(self, where: str, why: str) -> None:
        earlier = self._outcome.failures.get(where)
        self._outcome.failures[where] = f"{earlier}\n{why}" if earlier else why


def _explain(error: "SerializableErrorInfo | None") -> str:
    """What an error says, without Dagster's wrapping; an expected one without its class."""
    while error is not None and (error.cls_name or "").startswith(("Dagster", "RetryRequested")) and error.cause:
        error = error.cause
    if error is None:
        return ""
    message = error.message.strip()
    kind, _, rest = message.partition(": ")
    if _STORAGE.search(message):
        return message
    return rest if kind.startswith(("models.", "services.")) else f"{message}\nUnexpected; the traceback is in the log."
