"""Sensors: automation, a corpus source that changed, and incidents for failed runs."""

import time
from dataclasses import replace

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.gate import gate
from models.settings import load_settings
from orchestration.jobs import refresh_index
from orchestration.liveness import fail_orphaned_runs

_ERROR_CHARACTERS = 2000
_LOOK_EVERY_S = 600
_BURY_EVERY_S = 60
_RETRY_S = 600
_MOST_DOUBLINGS = 8
"""A source that cannot be read is tried again after 10 minutes at first, and after 21 hours at last."""
_SOURCE_TAG = "rerankops/source"


@dg.run_failure_sensor(
    description="Opens an incident for each failed run.", default_status=dg.DefaultSensorStatus.RUNNING
)
def incident_on_failure(context: dg.RunFailureSensorContext) -> None:
    """Record the failed run with its first error; the same run opens one incident. A candidate that the gate refused is
    one of kind `gate`, all else is a fault."""
    from models.records.database import open_database
    from models.records.incidents import open_incident

    run = context.dagster_run
    errors = [
        (event.step_key, event.step_failure_data.error)
        for event in context.get_step_failure_events()
        if event.step_failure_data.error is not None
    ]
    # Of a run that failed outside a step, as at its start, the event's message is all there is.
    step, message = None, context.failure_event.message or ""
    if errors:
        step, error = errors[0]
        message = (error.cause or error).message
    evidence = {"run_id": run.run_id, "job": run.job_name, "step": step, "error": message[:_ERROR_CHARACTERS]}
    kind = "gate" if step == gate.op.name else "fault"
    with open_database(load_settings()) as database:
        open_incident(database, kind, evidence, dedupe_key=f"run:{run.run_id}")


@dg.sensor(
    job=refresh_index,
    minimum_interval_seconds=_LOOK_EVERY_S,
    description="Reads the corpus again and refreshes the indexes when the corpus source has changed.",
)
def corpus_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Request `refresh_index` once for each change of the source, and again where that run failed, with pauses that
    double; the automation takes it from there.

    A look costs names, sizes and times of the files, or versions of the packages; content is read only after these
    changed (`models.corpus.source_changes`).
    """
    from models.corpus.corrections import corrections_in_force
    from models.corpus.source_changes import Seen, look
    from models.records.database import open_database

    deployment = Deployment()
    passages = deployment.store().current(keys.artifact_name(keys.PASSAGES))
    if passages is None:
        return dg.SensorResult(skip_reason="No corpus has been read yet; run the job lifecycle first.")
    settings = deployment.settings()
    read_from = passages.manifest.inputs["source"]
    with open_database(settings) as database:
        corrections = corrections_in_force(database, settings.corpus.source)
    seen = Seen.from_json(context.cursor)
    if seen.announced and _is_due_again(context.instance, seen.announced):
        seen = replace(seen, announced="")
    change = look(settings.corpus, settings.corpus_path, read_from, seen, corrections)
    cursor = change.seen.to_json()
    if not change.changed:
        return dg.SensorResult(skip_reason=change.message, cursor=cursor)
    context.log.info(change.message)
    # The count lets a change that was taken back come again; the corpus that is left, one after a reset of the cursor.
    run_key = f"{change.seen.fingerprint}:{passages.data_version}:{change.seen.changes}"
    tags = {_SOURCE_TAG: _tag(change.seen.fingerprint)}
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key, tags=tags)], cursor=cursor)


def _tag(fingerprint: str) -> str:
    return fingerprint[:24]


def _is_due_again(instance: dg.DagsterInstance, fingerprint: str) -> bool:
    """Whether the last run that was to read a source has failed, and long enough ago for the next try."""
    wanted = dg.RunsFilter(tags={_SOURCE_TAG: _tag(fingerprint)})
    records = instance.get_run_records(wanted, limit=_MOST_DOUBLINGS)
    if not records or records[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return False
    failed = sum(record.dagster_run.status is dg.DagsterRunStatus.FAILURE for record in records)
    return time.time() - (records[0].end_time or 0.0) >= _RETRY_S * 2 ** (failed - 1)


automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    description="Requests assets whose inputs changed and passed their checks.",
)


@dg.sensor(
    minimum_interval_seconds=_BURY_EVERY_S,
    description="Marks runs whose process was killed as failed, so that the queue and the pools go on.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def killed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Requests nothing; see `orchestration.liveness`."""
    dead = fail_orphaned_runs(context.instance, load_settings())
    return dg.SkipReason(f"killed runs: {', '.join(dead) or 'none'}")


SENSORS = [incident_on_failure, corpus_changed, automation, killed_runs]
