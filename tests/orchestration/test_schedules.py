"""Schedules: which day they ask for, and that the settings' cron and time zone hold."""

import os
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from sqlalchemy import delete

from assets import keys
from assets.resources import Deployment
from models.monitoring.decision_log import make_decision_log
from models.records.ledger import Ledger
from models.records.tables import DecisionRow
from orchestration.definitions import defs
from orchestration.schedules import SCHEDULES
from tests import traffic
from tests.deployments import use_home
from tests.service_process import free_port

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    return use_home(tmp_path, monkeypatch)


def tick(moment: datetime) -> list[str] | str | None:
    """What the schedule `monitoring` answers at a moment: the days that it asks for, or why there are none."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, repository_def=defs.get_repository_def()
        )
        data = defs.resolve_schedule_def("monitoring").evaluate_tick(context)
    return [str(request.partition_key) for request in data.run_requests or ()] or data.skip_message


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
    assert tick(datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))) == [day]


def test_there_is_nothing_before_the_first_partition() -> None:
    assert tick(datetime(2026, 1, 1, 0, 30, tzinfo=ZoneInfo("UTC"))) == "2025-12-31 is before the first partition"


def test_a_day_that_decisions_came_late_to_is_asked_for_again(deployment: Deployment) -> None:
    """What waited on a disk for the database until after the log was made was in no log."""
    store, settings, database = deployment.store(), deployment.settings(), deployment.database()
    served = traffic.release(store, Ledger(database), queries=5)
    day, night = date(2026, 3, 8), datetime(2026, 3, 10, 0, 30, tzinfo=ZoneInfo("UTC"))

    def make_log() -> int:
        log = make_decision_log(store, settings, database, day)
        store.point(log, day.isoformat())
        return log.summary["dagster/row_count"]

    traffic.ask(database, served, day, 3)
    assert tick(night) == ["2026-03-09", "2026-03-08"], "a day of which no log was made"
    assert (make_log(), tick(night)) == (3, ["2026-03-09"])
    traffic.ask(database, served, day, 2, seed=2)
    assert tick(night) == ["2026-03-09", "2026-03-08"]
    assert (make_log(), tick(night)) == (5, ["2026-03-09"])
    with database.session() as session:
        session.execute(delete(DecisionRow))
    assert tick(night) == ["2026-03-09"], "what retention has taken leaves the log as it is"


def test_a_database_that_is_away_keeps_no_day_from_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away = f"postgresql+psycopg://reader@127.0.0.1:{free_port()}/records"
    monkeypatch.setenv("RERANKOPS_STORAGE__DATABASE_URL", away)
    assert tick(datetime(2026, 3, 10, 0, 30, tzinfo=ZoneInfo("UTC"))) == ["2026-03-09"]


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
