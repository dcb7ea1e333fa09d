"""Sensors on real runs and real files."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from assets import keys
from assets.resources import ArtifactIOManager, Deployment
from checks.gate import gate
from models.corpus.sources import open_source
from models.records.incidents import open_incidents
from models.release.gate import decide
from models.store.artifacts import Artifact
from models.store.durable_files import canonical_json
from orchestration import sensors
from orchestration.definitions import defs
from orchestration.sensors import SENSORS, automation, corpus_changed, incident_on_failure
from tests.deployments import use_home, write_artifact
from tests.models.release.test_gate import GAIN, SETTINGS, changed


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as built:
        yield built


def failed_run(instance: dg.DagsterInstance, job: dg.JobDefinition) -> dg.RunFailureSensorContext:
    """Run a job that fails, and the context that the daemon gives the sensor for it."""
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    return dg.build_run_status_sensor_context(
        sensor_name="incident_on_failure",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    ).for_run_failure()


@dg.op
def read_corpus() -> None:
    raise OSError("the disk is full")


@dg.op(ins={"start": dg.In(dg.Nothing)})
def index_corpus() -> None:
    raise AssertionError("it runs behind the step that failed")


@dg.job
def ingest() -> None:
    index_corpus(read_corpus())


def test_a_failed_run_opens_one_incident_with_its_first_error(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    context = failed_run(instance, ingest)
    for _ in range(2):
        incident_on_failure(context)
    (incident,) = open_incidents(deployment.database())
    assert incident.kind == "fault"
    assert incident.evidence["run_id"] == context.dagster_run.run_id
    assert (incident.evidence["job"], incident.evidence["step"]) == ("ingest", "read_corpus")
    assert incident.evidence["error"].strip() == "OSError: the disk is full"

    incident_on_failure(failed_run(instance, ingest))
    assert len(open_incidents(deployment.database())) == 2, "another run, another incident"


def test_a_blocking_check_that_fails_a_run_is_named(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = use_home(tmp_path, monkeypatch)

    @dg.asset
    def passages() -> None: ...

    @dg.asset_check(asset=passages, blocking=True)
    def contract() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    built = dg.Definitions(assets=[passages], asset_checks=[contract])
    incident_on_failure(failed_run(instance, built.resolve_implicit_global_asset_job_def()))
    (incident,) = open_incidents(deployment.database())
    assert "passages: contract" in incident.evidence["error"]


def test_a_refused_candidate_is_an_incident_of_the_gate(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    decided = canonical_json(decide(changed({"gain": replace(GAIN, difference=0.001)}), SETTINGS).to_dict())

    @dg.asset(key=keys.GATE_DECISION, io_manager_key="io_manager")
    def gate_decision(deployment: Deployment) -> Artifact:
        return write_artifact(deployment.store(), "release/gate_decision", {}, {"decision.json": decided})

    built = dg.Definitions(
        assets=[gate_decision],
        asset_checks=[gate],
        resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
        executor=dg.in_process_executor,
    )
    incident_on_failure(failed_run(instance, built.resolve_implicit_global_asset_job_def()))
    (incident,) = open_incidents(deployment.database())
    assert incident.kind == "gate"
    assert "significant_gain" in incident.evidence["error"]


def test_a_run_that_never_reached_a_step_is_an_incident_too(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = use_home(tmp_path, monkeypatch)

    class Broken(dg.ConfigurableResource):
        def setup_for_execution(self, context: dg.InitResourceContext) -> None:
            raise ConnectionError("the store is away")

    @dg.asset
    def passages(store: Broken) -> None: ...

    built = dg.Definitions(assets=[passages], resources={"store": Broken()})
    incident_on_failure(failed_run(instance, built.resolve_implicit_global_asset_job_def()))
    (incident,) = open_incidents(deployment.database())
    assert incident.evidence["step"] is None
    assert incident.evidence["error"]


def write_corpus(folder: Path, text: str) -> None:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "title": "t", "text": text}) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "how?"}\n')
    (folder / "qrels" / "test.tsv").write_text("q\td\t1\n")


class Daemon:
    """Ticks of `corpus_changed` with its cursor kept, and run keys requested once, as the daemon does."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self.requested: dict[str, dg.RunRequest] = {}
        self.skipped = ""

    def tick(self) -> int:
        """How many runs this tick starts."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=defs.get_repository_def()
        )
        data = corpus_changed.evaluate_tick(context)
        self.cursor, self.skipped = data.cursor, data.skip_message or ""
        new = {request.run_key: request for request in data.run_requests or []}
        started = new.keys() - self.requested.keys()
        self.requested |= {key: request for key, request in new.items() if key is not None}
        return len(started)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the configured corpus."""
    folder = tmp_path / "data"
    write_corpus(folder, "first")
    use_home(tmp_path, monkeypatch, CORPUS__SOURCE="beir", CORPUS__PATH=str(folder))
    return folder


def read_again() -> None:
    """What reading the corpus leaves: passages that know the source they were read from."""
    deployment = Deployment()
    settings, store = deployment.settings(), deployment.store()
    fingerprint = open_source(settings.corpus, settings.corpus_path).fingerprint()
    built = write_artifact(store, "corpus/passages", {}, {"note": fingerprint.encode()}, inputs={"source": fingerprint})
    store.point(built)


def test_before_the_first_corpus_there_is_nothing_to_compare(instance: dg.DagsterInstance, corpus: Path) -> None:
    daemon = Daemon(instance)
    assert daemon.tick() == 0
    assert "run the job lifecycle first" in daemon.skipped


def test_a_changed_corpus_requests_one_refresh(instance: dg.DagsterInstance, corpus: Path) -> None:
    daemon = Daemon(instance)
    read_again()
    assert [daemon.tick() for _ in range(3)] == [0, 0, 0]

    write_corpus(corpus, "second")
    assert [daemon.tick() for _ in range(4)] == [0, 1, 0, 0], "after a tick at rest, and once"
    read_again()
    assert daemon.tick() == 0
    assert "the corpus was read from" in daemon.skipped


def test_a_change_that_goes_and_comes_requests_each_time(instance: dg.DagsterInstance, corpus: Path) -> None:
    daemon = Daemon(instance)
    read_again()
    for text in ("second", "first", "second", "first"):
        write_corpus(corpus, text)
        assert [daemon.tick() for _ in range(3)] == [0, 1, 0], text
        read_again()
    assert len(daemon.requested) == 4


def test_a_tick_that_was_lost_behind_its_request_does_not_request_again(
    instance: dg.DagsterInstance, corpus: Path
) -> None:
    """The daemon was killed between the run and the cursor."""
    daemon = Daemon(instance)
    read_again()
    write_corpus(corpus, "second")
    daemon.tick()
    before = daemon.cursor
    assert daemon.tick() == 1
    daemon.cursor = before
    assert daemon.tick() == 0


def test_a_refresh_that_failed_is_requested_again_after_a_pause(
    instance: dg.DagsterInstance, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor said for ever that it was requested already."""
    daemon = Daemon(instance)
    read_again()
    write_corpus(corpus, "second")
    assert [daemon.tick() for _ in range(3)] == [0, 1, 0]
    (request,) = daemon.requested.values()
    assert not ingest.execute_in_process(instance=instance, raise_on_error=False, tags=request.tags).success
    assert daemon.tick() == 0, "not at once"
    assert "requested already" in daemon.skipped
    monkeypatch.setattr(sensors, "_RETRY_S", 0)
    assert [daemon.tick() for _ in range(1)] == [1]
    read_again()
    assert daemon.tick() == 0


def test_it_asks_for_the_job_that_refreshes_the_index() -> None:
    assert corpus_changed.job_name == "refresh_index"
    job = defs.resolve_job_def("refresh_index")
    built = set(job.asset_layer.executable_asset_keys)
    assert {keys.PASSAGES, keys.QUARANTINED_ROWS, keys.CANDIDATES} <= built
    assert keys.LARGE_RERANKER not in built


def test_sensors_are_described_and_only_the_watch_over_failures_is_on() -> None:
    assert all(sensor.description for sensor in SENSORS)
    running = [sensor for sensor in SENSORS if sensor.default_status == dg.DefaultSensorStatus.RUNNING]
    assert [sensor.name for sensor in running] == ["incident_on_failure", "killed_runs"]


def test_the_automation_covers_every_asset() -> None:
    graph = defs.resolve_asset_graph()
    assert automation.asset_selection.resolve(graph) == graph.get_all_asset_keys()
