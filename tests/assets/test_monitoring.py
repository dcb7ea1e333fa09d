"""The monitoring assets with their checks, materialized over decisions in a real database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import keys, monitoring
from assets.release import latest_drift_share
from assets.resources import ArtifactIOManager, Deployment
from checks import contracts
from checks.drift import drift_share
from models.contracts.messages import PROBE_CALLER
from models.monitoring.decision_log import LOG_FILE
from models.records import decisions
from models.records.database import Database
from models.records.incidents import open_incidents
from models.records.ledger import Ledger, Release
from tests import traffic
from tests.deployments import shown, use_home
from tests.traffic import DAY, ask, decision, record

pytestmark = pytest.mark.heavy

Day = Callable[..., dg.ExecuteInProcessResult]

LOG_CONTRACT = contracts.decision_log_contract


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda *_: 0)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    return use_home(tmp_path, monkeypatch)


@pytest.fixture
def served(deployment: Deployment) -> Release:
    return traffic.release(deployment.store(), Ledger(deployment.database()))


@pytest.fixture
def materialize(deployment: Deployment) -> Day:
    """A function that materializes the group `monitoring` with its checks for one day, as the job `monitor` does."""
    instance = dg.DagsterInstance.ephemeral()

    def run(day: date, selection: Sequence[dg.AssetsDefinition] | None = None) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [*monitoring.ASSETS, LOG_CONTRACT, drift_share],
            resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
            instance=instance,
            partition_key=day.isoformat(),
            selection=selection,
            raise_on_error=False,
        )

    return run


def metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def check_of(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    return next(observed for observed in result.get_asset_check_evaluations() if observed.check_name == name)


def test_a_day_like_the_reference_passes(deployment: Deployment, served: Release, materialize: Day) -> None:
    ask(deployment.database(), served, DAY, 120)
    result = materialize(DAY)
    assert result.success
    log = metadata(result, keys.DECISION_LOG)
    assert (log["dagster/row_count"], log["callers"], log["degraded_share"], log["reused"]) == (120, 1, 0.0, False)
    report = metadata(result, keys.DRIFT_REPORT)
    assert (report["drift_share"], report["columns_drifted"]) == (0.0, 0)
    assert (report["reference_rows"], report["current_rows"]) == (150, 120)
    assert 0.05 < report["p_value_top_score"] <= 1
    assert "mean_top10_score" in Path(report["report"]).read_text()
    assert "| top_score | ks |" in report["columns"]
    assert check_of(result, "contract").passed
    assert check_of(result, "drift_share").passed
    assert open_incidents(deployment.database()) == []


@pytest.mark.parametrize("moved", [{"shift": 1.5}, {"shift": 1.5, "other_words": True}])
def test_a_day_of_other_queries_and_scores_is_flagged_once(
    moved: dict[str, Any], deployment: Deployment, served: Release, materialize: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKOPS_GATE__MAX_DRIFT_SHARE", "0.3")
    ask(deployment.database(), served, DAY, 120, **moved)
    result = materialize(DAY)
    assert result.success, "drift is news, not a failure"
    evaluation = check_of(result, "drift_share")
    assert not evaluation.passed
    assert shown(evaluation)["value"] == metadata(result, keys.DRIFT_REPORT)["drift_share"] > 0.3
    assert "| top_score |" in shown(evaluation)["examples"]
    (incident,) = open_incidents(deployment.database(), "drift")
    assert incident.evidence["day"] == DAY.isoformat()
    materialize(DAY)
    assert open_incidents(deployment.database()) == [incident]


def test_three_decisions_are_not_judged(deployment: Deployment, served: Release, materialize: Day) -> None:
    ask(deployment.database(), served, DAY, 3, shift=5.0)
    result = materialize(DAY)
    report = metadata(result, keys.DRIFT_REPORT)
    assert report["current_rows"] == 3
    assert "drift_share" not in report
    assert report["report"] is None
    evaluation = check_of(result, "drift_share")
    assert evaluation.passed
    assert shown(evaluation)["judged"] is False
    assert open_incidents(deployment.database()) == []


def test_a_day_is_reused_until_it_has_new_decisions(deployment: Deployment, served: Release, materialize: Day) -> None:
    database = deployment.database()
    ask(database, served, DAY, 40)
    first = materialize(DAY)
    again = materialize(DAY)
    for key in (keys.DECISION_LOG, keys.DRIFT_REPORT):
        assert (metadata(first, key)["reused"], metadata(again, key)["reused"]) == (False, True)
        assert version_of(first, key) == version_of(again, key)

    ask(database, served, DAY, 10, seed=2)
    later = materialize(DAY)
    assert metadata(later, keys.DECISION_LOG)["dagster/row_count"] == 50
    assert metadata(later, keys.DRIFT_REPORT)["current_rows"] == 50
    for key in (keys.DECISION_LOG, keys.DRIFT_REPORT):
        assert not metadata(later, key)["reused"]
        assert version_of(later, key) != version_of(first, key)


def version_of(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> str:
    """The data version that Dagster knows: the artifact's."""
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key]
    assert event.materialization.tags is not None
    return event.materialization.tags["dagster/data_version"]


def test_days_are_kept_apart(deployment: Deployment, served: Release, materialize: Day) -> None:
    database, store = deployment.database(), deployment.store()
    tomorrow = DAY + timedelta(days=1)
    ask(database, served, DAY, 4)
    ask(database, served, tomorrow, 5)
    results = {day: materialize(day) for day in (DAY, tomorrow)}
    for day, count in ((DAY, 4), (tomorrow, 5)):
        log = store.require("monitoring/decision_log", day.isoformat())
        assert len(log.read_table(LOG_FILE)) == count
        assert log.data_version == version_of(results[day], keys.DECISION_LOG)
    assert materialize(DAY + timedelta(days=2)).success, "a day without decisions"
    assert store.require("monitoring/drift_report", "2026-03-12").read_json("window.json")["day"] == "2026-03-12"


def test_probes_are_left_out(deployment: Deployment, served: Release, materialize: Day) -> None:
    database = deployment.database()
    ask(database, served, DAY, 4)
    ask(database, served, DAY, 6, seed=2, caller=PROBE_CALLER)
    assert metadata(materialize(DAY), keys.DECISION_LOG)["dagster/row_count"] == 4


def test_a_broken_log_stops_the_report(deployment: Deployment, materialize: Day) -> None:
    """The contract is a blocking check, and the report refuses such a log also when it is asked for alone."""
    low = [{"passage_id": "a", "rank": 1, "score": -0.5, "tier": "large"}]
    record(deployment.database(), decision("d1", ranking=low))
    result = materialize(DAY)
    assert not result.success
    assert not check_of(result, "contract").passed
    assert "top_score" in shown(check_of(result, "contract"))["examples"]
    assert deployment.store().current("monitoring/drift_report", DAY.isoformat()) is None

    alone = materialize(DAY, [monitoring.drift_report])
    assert not alone.success
    assert deployment.store().current("monitoring/drift_report", DAY.isoformat()) is None


def test_the_settings_choose_the_reference(
    deployment: Deployment, served: Release, materialize: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKOPS_MONITORING__REFERENCE", "previous_days")
    monkeypatch.setenv("RERANKOPS_MONITORING__MIN_DECISIONS", "5")
    database = deployment.database()
    for number in range(3):
        ask(database, served, DAY + timedelta(days=number), 40, seed=number)
    first, second, third = (
        metadata(materialize(DAY + timedelta(days=number)), keys.DRIFT_REPORT) for number in range(3)
    )
    assert (first["reference_rows"], "drift_share" in first) == (0, False)
    assert (second["reference_rows"], second["drift_share"]) == (40, 0.0)
    assert (third["reference_rows"], third["columns_compared"]) == (80, 10)


def test_the_newest_report_reaches_the_gate(deployment: Deployment, served: Release, materialize: Day) -> None:
    today = datetime.now(UTC).date()
    assert latest_drift_share(deployment) is None
    ask(deployment.database(), served, today, 60, shift=1.5)
    report = metadata(materialize(today), keys.DRIFT_REPORT)
    assert latest_drift_share(deployment) == report["drift_share"] > 0
    traffic.release(deployment.store(), Ledger(deployment.database()), seed=9)
    assert latest_drift_share(deployment) is None, "it was about the release before"


def test_a_database_that_is_away_is_asked_again(
    deployment: Deployment, served: Release, materialize: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is locked by another program at the first attempt."""
    asked: list[int] = []
    read = decisions.read

    def locked_at_first(database: Database, *arguments: Any, **options: Any) -> Any:
        asked.append(1)
        if len(asked) == 1:
            from models.records.database import DatabaseError

            raise DatabaseError("database is locked", "Try again.") from sqlite3.OperationalError("database is locked")
        return read(database, *arguments, **options)

    ask(deployment.database(), served, DAY, 3)
    monkeypatch.setattr("models.records.decisions.read", locked_at_first)
    assert materialize(DAY).success
    assert len(asked) == 2
