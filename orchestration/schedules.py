"""Schedules, from `[schedules]` of the settings."""

from datetime import UTC, timedelta

import dagster as dg

from assets.config import settings_to_show
from assets.partitions import DAYS
from models.settings import load_settings
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
    description="Decision log and drift report of the last whole UTC day.",
)
def monitoring(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for the last UTC day that is over at the tick, whatever the time zone of the schedule."""
    load_settings()
    day = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
    if not DAYS.has_partition_key(day.isoformat()):
        return dg.SkipReason(f"{day} is before the first partition")
    return dg.RunRequest(partition_key=day.isoformat())


SCHEDULES = [retraining, monitoring]
