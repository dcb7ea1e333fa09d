"""MLflow's runs and registry, on a real SQLite store."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from werkzeug.serving import WSGIRequestHandler, make_server

from models.records.mlflow_registry import CHALLENGER, CHAMPION, PREVIOUS, Tracking
from models.release.registration import register_model
from models.settings import Settings
from models.store.artifacts import ArtifactStore
from tests.deployments import write_trained
from tests.small_bundle import small_settings


@pytest.fixture
def client(tracking: Tracking) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)


def test_a_run_has_its_parameters_metrics_histories_and_files(
    tracking: Tracking, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "plot.txt").write_text("a plot")
    run_id = tracking.log_run(
        "training",
        params={"rate": 1e-4, "long": "x" * 5000},
        metrics={"ndcg": 0.5},
        tags={"kind": "test"},
        history={"loss": [(1, 0.9), (5, 0.4)]},
        files=[tmp_path / "plot.txt"],
    )
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("training", "FINISHED")
    assert run.data.params["rate"] == "0.0001"
    assert len(run.data.params["long"]) == 500
    assert run.data.metrics == {"ndcg": 0.5, "loss": 0.4}
    assert run.data.tags["kind"] == "test"
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")] == [(1, 0.9), (5, 0.4)]
    assert [file.path for file in client.list_artifacts(run_id)] == ["plot.txt"]
    second = tracking.log_run("evaluation", params={}, metrics={})
    assert client.get_run(second).info.experiment_id == run.info.experiment_id


def test_an_artifact_has_one_version_however_often_it_is_registered(tracking: Tracking, tmp_path: Path) -> None:
    first, second = write_trained(tmp_path, "one"), write_trained(tmp_path, "two")
    assert tracking.ensure_version("reranker", first) == "1"
    assert tracking.ensure_version("reranker", second) == "2"
    assert tracking.ensure_version("reranker", first) == "1"
    assert tracking.ensure_version("reranker-large", second) == "1"


def test_a_version_points_at_its_folder_and_names_its_content(
    tracking: Tracking, client: MlflowClient, tmp_path: Path
) -> None:
    built = write_trained(tmp_path, "one")
    result = client.get_model_version("reranker", tracking.ensure_version("reranker", built))
    assert result.source == built.folder.absolute().as_uri()
    assert result.tags["rerankops.data_version"] == built.data_version
    assert result.tags["rerankops.asset"] == built.asset


@pytest.fixture
def server(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """The same MLflow behind its own server."""
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", tracking.uri)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(tmp_path / "mlartifacts"))
    from mlflow.server import app

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    http = make_server("127.0.0.1", 0, app, request_handler=Quiet)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield Tracking(f"http://127.0.0.1:{http.server_port}", None, "reranker")
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.heavy
def test_a_server_which_refuses_addresses_of_files_has_versions_too(server: Tracking, tmp_path: Path) -> None:
    built = write_trained(tmp_path, "one")
    run_id = server.log_run("training", params={}, metrics={"ndcg": 0.5})
    assert server.ensure_version("reranker-large", built, run_id) == "1"
    assert server.ensure_version("reranker", built) == server.ensure_version("reranker", built) == "1"
    server.set_alias(CHAMPION, "1")
    assert server.aliases() == {CHAMPION: built.data_version}


def test_aliases_move_and_go(tracking: Tracking, tmp_path: Path) -> None:
    for content in ("one", "two"):
        tracking.ensure_version("reranker", write_trained(tmp_path, content))
    assert tracking.alias(CHAMPION) is None
    for version in ("1", "2", "2", "1"):
        tracking.set_alias(CHAMPION, version)
        assert tracking.alias(CHAMPION) == version
    tracking.set_alias(PREVIOUS, "2")
    for _ in range(2):
        tracking.set_alias(CHAMPION, None)
        assert tracking.alias(CHAMPION) is None
    assert (tracking.alias(PREVIOUS), tracking.alias(CHALLENGER)) == ("2", None)


def test_before_the_first_model_there_are_no_aliases(tracking: Tracking) -> None:
    assert tracking.alias(CHAMPION) is None


def test_a_model_made_now_has_a_run_with_its_loss_and_a_reused_one_keeps_its_version(
    tracking: Tracking, client: MlflowClient, tmp_path: Path
) -> None:
    built = write_trained(tmp_path, "weights", "training/large_reranker")
    assert register_model(tracking, built, "large", {"seed": 0}) == "1"
    run_id = client.get_model_version("reranker-large", "1").run_id
    assert run_id is not None
    run = client.get_run(run_id)
    assert run.info.run_name == "large_reranker"
    assert (run.data.metrics["lists"], run.data.params["seed"]) == (7.0, "0")
    history = client.get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.9), (2, 0.5)]
    measured = client.get_metric_history(run_id, "development_ndcg_at_10")
    assert [(point.step, point.value) for point in measured] == [(2, 0.7)]
    assert register_model(tracking, replace(built, reused=True), "large", {"seed": 0}) == "1"
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_deployment_without_a_uri_has_its_store_in_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path / "home"))
    result = Tracking.of(small_settings(tmp_path, storage={"mlflow_uri": "", "model_name": "mine"}))
    assert (tmp_path / "home" / "mlflow").is_dir()
    assert result.uri == f"sqlite:///{tmp_path / 'home' / 'mlflow' / 'mlflow.db'}"
    assert result.artifact_root == (tmp_path / "home" / "mlflow" / "artifacts").as_uri()
    assert result.model_name == "mine"
    given = Tracking.of(small_settings(tmp_path, storage={"mlflow_uri": "http://mlflow:5000"}))
    assert (given.uri, given.artifact_root) == ("http://mlflow:5000", None)


@pytest.mark.parametrize("how", ["moved", "copied", "linked"])
def test_a_home_that_was_moved_or_copied_keeps_to_itself(
    empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    before, now = tmp_path / "before", tmp_path / "a now%20?#"
    (before / "mlflow").mkdir(parents=True)
    shutil.copyfile(empty_mlflow, before / "mlflow" / "mlflow.db")
    note = tmp_path / "note.txt"
    note.write_text("a run's file")

    def log(home: Path) -> Tracking:
        monkeypatch.setenv("RERANKOPS_HOME", str(home))
        tracking = Tracking.of(Settings())
        tracking.log_run("run", params={}, metrics={}, files=[note])
        return tracking

    built = ArtifactStore(str(before / "artifacts"), tmp_path / "cache").get_or_create(
        "release/release_candidate", code_version="1", inputs={}, settings={}, build=_write_one_file
    )
    log(before).ensure_version("reranker", built)
    if how == "moved":
        before.rename(now)
    elif how == "copied":
        shutil.copytree(before, now)
    else:
        now.symlink_to(before)
    files = {path: path.stat().st_mtime_ns for path in before.rglob("*")} if how == "copied" else {}
    client = log(now)._client()
    assert {path: path.stat().st_mtime_ns for path in before.rglob("*")} == files or how == "linked"
    assert how != "moved" or not before.exists()
    assert len(list((now / "mlflow" / "artifacts").rglob("note.txt"))) == 2
    beside = {"moved": {now.name}, "copied": {before.name, now.name}, "linked": {before.name, now.name}}[how]
    assert {path.name for path in tmp_path.iterdir()} == beside | {"note.txt"}, "MLflow makes no folder of its own"
    source = client.get_model_version("reranker", "1").source
    assert source == built.folder.as_uri().replace(before.as_uri(), (before if how == "linked" else now).as_uri())
    experiment = client.get_experiment_by_name("rerankops")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len({str(run.info.artifact_uri).partition("/mlflow/")[0] for run in runs}) == 1
    assert all([file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"] for run in runs)


def _write_one_file(folder: Path) -> dict[str, int]:
    (folder / "bundle.json").write_text("{}")
    return {}
