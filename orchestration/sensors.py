"""Sensors: automation, and incidents for failed runs."""

import dagster as dg

from assets.resources import Deployment


@dg.run_failure_sensor(
    description="Opens an incident for each failed run.", default_status=dg.DefaultSensorStatus.RUNNING
)
def incident_on_failure(context: dg.RunFailureSensorContext) -> None:
    """Record the failed run with its first error; the same run opens one incident."""
    from models.incidents import open_incident

    evidence = {
        "run_id": context.dagster_run.run_id,
        "job": context.dagster_run.job_name,
        "error": (context.failure_event.message or "")[:2000],
    }
    open_incident(Deployment().database(), "fault", evidence, dedupe_key=f"run:{context.dagster_run.run_id}")


automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    description="Requests assets whose inputs changed and passed their checks.",
)

SENSORS = [incident_on_failure, automation]
