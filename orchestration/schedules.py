"""Schedules, from `[schedules]` of the settings."""

import logging
from datetime import UTC, date, timedelta

import dagster as dg

from assets.config import settings_to_show
from assets.partitions import DAYS
from models.settings import Settings, load_settings
from orchestration.jobs import lifecycle, monitor

# Where the settings cannot be read, the ticks of the default schedules fail for it.
_SETTINGS = settings_to_show().schedules


@dg.schedule(
    name="retraining",
    job=lifecycle,
    cron_schedule=_SETTINGS.retrain,
    execution_timezone=_SETTINGS.timezone,
    description="Runs the whole lifecycle; what did not change is reused, and the gate decides on the rest.",
)
def retraining() -> dg.RunRequest:
    """Ask for a run under settings that can be read."""
    load_settings()
    return dg.RunRequest()


# Not `build_schedule_from_partitioned_job`: its hour and time zone are those of the partitions, UTC, not the settings'.
@dg.schedule(
    name="monitoring",
    job=monitor,
    cron_schedule=_SETTINGS.monitor,
    execution_timezone=_SETTINGS.timezone,
    description="Decision log and drift report of the last whole UTC day, and of days that decisions came late to.",
)
def monitoring(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Ask for the last UTC day that is over at the tick, whatever the time zone of the schedule, and again for days
    before it whose logs lack decisions."""
    settings = load_settings()
    day = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
    if not DAYS.has_partition_key(day.isoformat()):
        return dg.SkipReason(f"{day} is before the first partition")
    keys = [day.isoformat(), *(late for late in _late_days(settings, day, context.log) if DAYS.has_partition_key(late))]
    return [dg.RunRequest(run_key=key, partition_key=key) for key in keys]


def _late_days(settings: Settings, day: date, log: logging.Logger) -> list[str]:
    from models.monitoring.decision_log import late_days
    from models.records.database import DatabaseError, open_database
    from models.store.artifacts import ArtifactStore

    try:
        with open_database(settings) as database:
            return [late.isoformat() for late in late_days(ArtifactStore.of(settings), settings, database, day)]
    except DatabaseError as error:
        log.warning(f"late decisions are looked for at the next tick: {error}")
        return []


SCHEDULES = [retraining, monitoring]
