"""Schedules: which day they ask for, and that the settings' cron and time zone hold."""

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from assets import keys
from orchestration.definitions import defs
from orchestration.schedules import SCHEDULES

ROOT = Path(__file__).resolve().parent.parent.parent


def tick(moment: datetime) -> dg.RunRequest | str | None:
    """What the schedule `monitoring` answers at a moment: the request, or why there is none."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, repository_def=defs.get_repository_def()
        )
        data = defs.resolve_schedule_def("monitoring").evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("UTC", "2026-03-10T00:30", "2026-03-09"),
        ("UTC", "2026-03-10T23:59", "2026-03-09"),
        # In Tokyo the UTC day before the local one still runs; in Los Angeles one more is over.
        ("Asia/Tokyo", "2026-03-10T00:30", "2026-03-08"),
        ("Asia/Tokyo", "2026-03-10T09:30", "2026-03-09"),
        ("America/Los_Angeles", "2026-03-10T00:30", "2026-03-09"),
        ("America/Los_Angeles", "2026-03-10T18:30", "2026-03-10"),
    ],
)
def test_monitoring_asks_for_the_last_utc_day_that_is_over(zone: str, moment: str, day: str) -> None:
    request = tick(datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone)))
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == day


def test_there_is_nothing_before_the_first_partition() -> None:
    assert tick(datetime(2026, 1, 1, 0, 30, tzinfo=ZoneInfo("UTC"))) == "2025-12-31 is before the first partition"


def test_monitor_makes_log_and_report_with_their_checks() -> None:
    job = defs.resolve_job_def("monitor")
    assert job.asset_layer.executable_asset_keys == {keys.DECISION_LOG, keys.DRIFT_REPORT}
    assert job.partitions_def is not None
    assert {"monitoring__decision_log_contract", "monitoring__drift_report_drift_share"} <= set(job.graph.node_dict)
    lifecycle = defs.resolve_job_def("lifecycle")
    assert lifecycle.partitions_def is None
    assert not [name for name in lifecycle.graph.node_dict if name.startswith("monitoring")]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_schedules_are_described_and_off_until_switched_on(schedule: dg.ScheduleDefinition) -> None:
    assert schedule.description
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


def test_cron_and_time_zone_come_from_the_settings(tmp_path: Path) -> None:
    program = (
        "from orchestration.schedules import SCHEDULES\n"
        "print(*((s.name, s.cron_schedule, s.execution_timezone) for s in SCHEDULES), sep='\\n')"
    )
    given = {
        "RERANKOPS_HOME": str(tmp_path),
        "RERANKOPS_SCHEDULES__RETRAIN": "5 4 * * 1",
        "RERANKOPS_SCHEDULES__MONITOR": "15 6 * * *",
        "RERANKOPS_SCHEDULES__TIMEZONE": "Europe/Berlin",
    }
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=True
    )
    assert completed.stdout.splitlines() == [
        "('retraining', '5 4 * * 1', 'Europe/Berlin')",
        "('monitoring', '15 6 * * *', 'Europe/Berlin')",
    ]
