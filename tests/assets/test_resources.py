"""The records database of a run: opened once, and closed when the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import event, pool, text

from assets import monitoring
from assets.resources import ArtifactIOManager, Deployment
from checks.drift import drift_share
from models.records.database import open_database
from models.records.incidents import open_incidents
from models.records.ledger import Ledger
from orchestration.sensors import incident_on_failure
from tests import traffic
from tests.deployments import use_home
from tests.traffic import DAY, ask


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    return use_home(tmp_path, monkeypatch)


@pytest.fixture
def engines() -> Iterator[list[str]]:
    """One entry for each engine that opens a first connection to a records database."""
    opened: list[str] = []

    def first(connection: object, _record: object) -> None:
        files = connection.execute("PRAGMA database_list").fetchall()  # pyright: ignore[reportAttributeAccessIssue]
        opened.extend(file for _, _, file in files if file.endswith("rerankops.db"))

    event.listen(pool.Pool, "first_connect", first)
    yield opened
    event.remove(pool.Pool, "first_connect", first)


def open_files(deployment: Deployment) -> list[str]:
    """What this process holds open of the records database."""
    result = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # That of the listing itself.
            continue
        if target.startswith(str(deployment.settings().home / "rerankops.db")):
            result.append(target)
    return result


@dg.asset
def counts(deployment: Deployment) -> int:
    with deployment.database().session(read_only=True) as session:
        return int(session.execute(text("SELECT count(*) FROM releases")).scalar_one())


@dg.asset
def held(deployment: Deployment, counts: int) -> None:
    with deployment.database().session():
        assert open_files(deployment)


@dg.asset(deps=[held])
def broken(deployment: Deployment) -> None:
    with deployment.database().session():
        raise OSError("the disk is full")


@pytest.mark.parametrize("succeeds", [True, False])
def test_the_steps_of_a_run_share_one_engine_which_is_closed_when_it_ends(
    deployment: Deployment, engines: list[str], succeeds: bool
) -> None:
    assets = [counts, held] if succeeds else [counts, held, broken]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(assets, resources={"deployment": deployment}, instance=instance, raise_on_error=False)
    assert result.success is succeeds
    assert len(engines) == 1
    assert open_files(deployment) == []


@pytest.mark.heavy
def test_a_run_of_the_monitoring_with_its_checks_leaves_nothing_open(
    deployment: Deployment, engines: list[str]
) -> None:
    with open_database(deployment.settings()) as database:
        served = traffic.release(deployment.store(), Ledger(database))
        ask(database, served, DAY, 120, shift=5.0)
    assert open_files(deployment) == []
    engines.clear()
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*monitoring.ASSETS, drift_share],
            resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
            instance=instance,
            partition_key=DAY.isoformat(),
            raise_on_error=False,
        )
    assert result.success, "an alert of drift does not block"
    assert len(engines) == 1, "log, report, ledger and incident went through one engine"
    assert open_files(deployment) == []


def test_a_sensor_closes_what_it_opened(deployment: Deployment, engines: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [counts, held, broken], resources={"deployment": deployment}, instance=instance, raise_on_error=False
        )
        engines.clear()
        incident_on_failure(
            dg.build_run_status_sensor_context(
                sensor_name="incident_on_failure",
                dagster_event=result.get_run_failure_event(),
                dagster_instance=instance,
                dagster_run=result.dagster_run,
            ).for_run_failure()
        )
    assert len(engines) == 1
    assert open_files(deployment) == []
    with open_database(deployment.settings()) as database:
        assert len(open_incidents(database)) == 1
