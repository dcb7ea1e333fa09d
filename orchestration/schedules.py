"""Schedules, from `[schedules]` of the settings."""

import dagster as dg

from models.settings import load_settings
from orchestration.jobs import lifecycle

_SETTINGS = load_settings().schedules

retraining = dg.ScheduleDefinition(
    name="retraining",
    job=lifecycle,
    cron_schedule=_SETTINGS.retrain,
    execution_timezone=_SETTINGS.timezone,
    description="Runs the whole lifecycle; what did not change is reused, and the gate decides on the rest.",
)

SCHEDULES = [retraining]
