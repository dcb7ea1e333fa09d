"""The settings in Dagster's launchpad: what is shown, what is refused, and that an edit takes effect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from assets import corpus, evaluation, index, keys, release, training
from assets.config import ServingConfig, TrainingConfig
from assets.resources import ArtifactIOManager, Deployment
from checks import contracts
from models.settings import ROOT, Settings, TrainingSettings, load_settings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.corpus_defaults import KEYS
from orchestration.definitions import defs
from orchestration.jobs import RollbackConfig
from tests.deployments import use_home, write_corpus_defaults
from tests.docs_corpus import docs_settings, write_docs_corpus

DEFAULTS = Settings()
JOB = defs.resolve_job_def("lifecycle")


def launch(sections: Mapping[str, Any]) -> dict[str, Any]:
    """A run configuration as the launchpad writes it."""
    return {"resources": {"deployment": {"config": sections}}}


@pytest.fixture(scope="session")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    write_docs_corpus(folder, documents=60)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docs: Path) -> Path:
    use_home(tmp_path, monkeypatch)
    for key, value in docs_settings(docs).items():
        monkeypatch.setenv(f"RERANKOPS_{key.upper().replace('.', '__')}", value)
    return tmp_path


def materialize(
    sections: Mapping[str, Any], parts: Sequence[Any] = (corpus.read, index.lexical_index), **options: Any
) -> dg.ExecuteInProcessResult:
    deployment = Deployment.configure_at_launch()
    return dg.materialize(
        parts,
        resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
        run_config=launch(sections),
        raise_on_error=False,
        **options,
    )


def store_of(home: Path) -> ArtifactStore:
    return ArtifactStore(str(home / "artifacts"), home / "cache")


def current(home: Path, key: dg.AssetKey) -> Artifact:
    return store_of(home).require(keys.artifact_name(key))


def metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (event,) = (item for item in result.get_asset_materialization_events() if item.asset_key == key)
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_the_defaults_are_the_settings_in_force() -> None:
    program = """
import json
from models.settings import load_settings
from models.training.corpus_defaults import KEYS
from orchestration.definitions import defs
schema = defs.resolve_job_def("lifecycle").run_config_schema.config_type
print(json.dumps([schema.fields["resources"].default_value, load_settings().model_dump(mode="json")]))
"""
    environment = os.environ | {"RERANKOPS_PRESET": "tiny", "RERANKOPS_TRAINING__SEED": "11"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    resources, settings = json.loads(done.stdout)
    shown = resources["deployment"]["config"]
    assert shown["training"]["seed"] == 11
    assert shown["training"]["max_queries"] == settings["training"]["max_queries"] != DEFAULTS.training.max_queries
    left_out = {"preset", "schedules", "storage", "generator", "search", "pretraining", "retention", "cache"}
    assert set(shown) == set(settings) - left_out
    # The service alone reads the rest of its section.
    settings["serving"] = {name: settings["serving"][name] for name in ServingConfig.model_fields}
    assert shown == {name: settings[name] for name in shown}


def test_settings_that_cannot_be_read_fail_runs_and_ticks_and_not_the_code_location(tmp_path: Path) -> None:
    program = """
import dagster as dg, json
from models.training.corpus_defaults import KEYS
from orchestration.definitions import defs

def reason(call):
    try:
        result = call()
    except Exception as error:
        told = []
        while error is not None:
            told.append(str(error))
            error = error.__cause__
        return " ".join(told)
    started = [event.step_key for event in result.all_events if event.is_step_start]
    (failure,) = (event for event in result.all_events if event.is_run_failure)
    error = failure.job_failure_data.error
    told = []
    while error is not None:
        told.append(error.message)
        error = error.cause
    return f"{' '.join(told)} {started}"

repository = defs.get_repository_def()
with dg.DagsterInstance.ephemeral() as instance:
    print(json.dumps([
        len(defs.resolve_asset_graph().get_all_asset_keys()),
        reason(lambda: defs.resolve_job_def("lifecycle").execute_in_process(instance=instance, raise_on_error=False)),
        *(reason(lambda: repository.get_schedule_def(name).evaluate_tick(
              dg.build_schedule_context(instance=instance, repository_def=repository)))
          for name in ("retraining", "monitoring")),
        *(reason(lambda: repository.get_sensor_def(name).evaluate_tick(
              dg.build_sensor_context(instance=instance, repository_def=repository)))
          for name in ("corpus_changed", "killed_runs")),
    ]))
"""
    file = tmp_path / "rerankops.toml"
    file.write_text("[training]\nsed = 1\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"RERANKOPS_HOME": str(tmp_path), "RERANKOPS_SETTINGS": str(file)},
        capture_output=True,
        text=True,
        check=True,
    )
    count, run, *ticks = json.loads(done.stdout)
    assert count > 20
    assert "training.sed: no such setting" in run
    assert run.endswith(" []"), "no step began"
    assert len(ticks) == 4
    assert all("training.sed: no such setting" in tick for tick in ticks), ticks
    assert "The defaults are shown, as the settings cannot be read: training.sed" in done.stderr


def test_a_field_says_what_it_is_and_what_it_accepts() -> None:
    fields = TrainingConfig.to_fields_dict()
    assert fields["seed"].description == TrainingSettings.model_fields["seed"].description
    assert fields["device"].description == 'Device of training and batch scoring. One of "auto", "cpu", "cuda", "mps".'


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        (launch({"training": {"sed": 1}}), 'unexpected config entry "sed" at path root:resources:deployment:config:tr'),
        (launch({"trainng": {"seed": 1}}), 'unexpected config entry "trainng" at path root:resources:deployment'),
        (launch({"training": {"seed": "one"}}), "root:resources:deployment:config:training:seed"),
        (launch({"storage": {"model_name": "other"}}), 'unexpected config entry "storage"'),
        (
            {"ops": {"training__large_reranker": {"config": {"seed": 1}}}},
            '"seed" at path root:ops:training__large_reranker',
        ),
    ],
)
def test_what_is_misspelt_is_refused_before_anything_runs(
    home: Path, configuration: dict[str, Any], named: str
) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=named):
        JOB.execute_in_process(run_config=configuration)


def test_a_misspelt_key_in_python_is_refused_too() -> None:
    """Dagster drops a key that a config class does not know, unless the class forbids it."""
    misspelt: list[tuple[type[dg.Config], dict[str, Any]]] = [
        (TrainingConfig, {"sed": 1}),
        (Deployment, {"trainng": TrainingConfig()}),
        (Deployment, {"training": {"sed": 1}}),
        (RollbackConfig, {"raeson": "x"}),
    ]
    for config, values in misspelt:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            config(**values)


def test_a_value_that_is_not_allowed_stops_the_run_before_its_first_step(home: Path) -> None:
    for sections, named in (
        ({"training": {"dropout": 2.0}}, "training.dropout: Input should be less than or equal to 1"),
        ({"corpus": {"source": "excel"}}, "corpus.source: Input should be 'python-docs'"),
        ({"corpus": {"overlap_tokens": 500}}, "corpus.overlap_tokens: must be smaller than corpus.passage_tokens"),
    ):
        result = materialize(sections)
        assert not result.success
        assert not [event for event in result.all_events if event.is_step_start]
        (failure,) = (event for event in result.all_events if event.is_run_failure)
        error = failure.job_failure_data.error
        while error is not None and "SettingsError" not in error.message:
            error = error.cause
        assert error is not None
        assert named in error.message
        assert store_of(home).current("corpus/passages") is None


def test_an_edit_changes_what_is_made_and_nothing_else_does(home: Path) -> None:
    plain = materialize({})
    assert plain.success
    first = {key: current(home, key) for key in (keys.PASSAGES, keys.LEXICAL_INDEX)}
    again = materialize({"index": {"bm25_k1": first[keys.LEXICAL_INDEX].manifest.settings["index.bm25_k1"]}})
    assert metadata(again, keys.LEXICAL_INDEX)["reused"], "the default, written out, is no edit"

    edited = materialize({"index": {"bm25_k1": 1.7}, "corpus": {"passage_tokens": 64, "overlap_tokens": 8}})
    assert edited.success
    passages, lexical = current(home, keys.PASSAGES), current(home, keys.LEXICAL_INDEX)
    assert passages.manifest.settings["corpus.passage_tokens"] == 64
    assert lexical.manifest.settings["index.bm25_k1"] == 1.7
    assert passages.data_version != first[keys.PASSAGES].data_version
    assert len(passages.read_table("passages.parquet")) > len(first[keys.PASSAGES].read_table("passages.parquet"))

    assert materialize({}).success
    assert current(home, keys.PASSAGES) == first[keys.PASSAGES], "the next run is not edited"


def test_an_edit_holds_for_the_checks_of_the_run(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_docs_corpus(tmp_path / "rejects", documents=40)
    with (tmp_path / "rejects" / "documents.jsonl").open("a") as file:
        file.write('{"document_id": "empty", "text": ""}\n' * 3)
    monkeypatch.setenv("RERANKOPS_CORPUS__PATH", str(tmp_path / "rejects"))

    def share(sections: Mapping[str, Any]) -> dg.AssetCheckEvaluation:
        (result,) = materialize(sections, (corpus.read, contracts.rejected_share)).get_asset_check_evaluations()
        return result

    strict, lax = share({}), share({"corpus": {"max_rejected_share": 0.5}})
    assert (strict.passed, strict.metadata["threshold"].value) == (False, DEFAULTS.corpus.max_rejected_share)
    assert (lax.passed, lax.metadata["threshold"].value) == (True, 0.5)


def test_the_launchpad_and_the_environment_say_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not metadata(materialize({"index": {"bm25_b": 0.9}}), keys.LEXICAL_INDEX)["reused"]
    monkeypatch.setenv("RERANKOPS_INDEX__BM25_B", "0.9")
    assert metadata(materialize({}), keys.LEXICAL_INDEX)["reused"]


def test_a_run_keeps_the_settings_that_it_started_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @dg.asset
    def first(deployment: Deployment) -> None:
        seen.append(deployment.settings().training.seed)
        monkeypatch.setenv("RERANKOPS_TRAINING__SEED", "99")

    @dg.asset(deps=[first])
    def second(deployment: Deployment) -> None:
        seen.append(deployment.settings().training.seed)

    assert materialize({"training": {"seed": 5}}, [first, second]).success
    assert seen == [5, 5]
    assert Deployment().settings().training.seed == 99


COMPACT_RERANKER = keys.RERANKERS[0]
PARTS = (
    keys.PASSAGES, keys.PASSAGE_EMBEDDINGS, keys.DENSE_INDEX, keys.LEXICAL_INDEX, keys.FIRST_STAGE, *keys.RERANKERS,
    keys.SCORING_ENGINES, keys.SCORE_CALIBRATION, keys.OFFLINE_EVALUATION, keys.EVALUATION_SET,
    keys.CANDIDATES,
    keys.SCORED_CANDIDATES,
)  # fmt: skip


CHOSEN: dict[str, int | str] = {**dict.fromkeys(KEYS, 20), "training.max_tokens": 64, "training.passage_cut": "query"}
UPSTREAM = [*corpus.ASSETS, *index.ASSETS, *training.ASSETS, *evaluation.ASSETS, *release.ASSETS]


def make_bundle(configuration: Mapping[str, Any]) -> str:
    """Materialize the release candidate alone, and return why that failed."""
    write_corpus_defaults(ArtifactStore.of(load_settings()), load_settings(), CHOSEN)
    result = materialize(configuration, UPSTREAM, selection=[release.release_candidate])
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    error = failure.step_failure_data.error
    assert error is not None
    return (error.cause or error).message


def make_part(
    home: Path, key: dg.AssetKey, settings: Mapping[str, Any], inputs: Mapping[str, str] | None = None
) -> Artifact:
    """Make an artifact under the name of an asset the current one: enough for what is decided by its manifest."""

    def build(folder: Path) -> dict[str, Any]:
        (folder / "content.json").write_text(json.dumps([key.path, settings, inputs]))
        return {}

    store = store_of(home)
    artifact = store.get_or_create(
        keys.artifact_name(key), code_version="1", inputs=inputs or {}, settings=settings, build=build
    )
    store.point(artifact)
    return artifact


@pytest.mark.parametrize(
    ("edited", "configuration", "named"),
    [
        (
            {keys.LARGE_RERANKER: {"training.learning_rate": 1e-3}},
            {},
            "training.learning_rate: training/compact_reranker was made with 0.0001, training/large_reranker has 0.001",
        ),
        (
            {keys.SCORED_CANDIDATES: {"training.max_tokens": 8}},
            {},
            "training.max_tokens: evaluation/scored_candidates was made with 8, this run has ",
        ),
        (
            {},
            {"tiers": {"large_candidates": 1}},
            f"evaluation/offline_evaluation was made with {CHOSEN['tiers.large_candidates']}, this run has 1",
        ),
    ],
)
def test_no_bundle_is_made_of_parts_with_different_settings(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    edited: Mapping[dg.AssetKey, dict[str, Any]],
    configuration: dict[str, Any],
    named: str,
) -> None:
    monkeypatch.setenv("RERANKOPS_TIERS__MODELS", '["compact", "large"]')
    settings: dict[dg.AssetKey, dict[str, Any]] = {
        keys.LARGE_RERANKER: {"training.learning_rate": 1e-4},
        COMPACT_RERANKER: {"training.learning_rate": 1e-4},
        keys.SCORED_CANDIDATES: {"training.max_tokens": CHOSEN["training.max_tokens"]},
        keys.OFFLINE_EVALUATION: {"tiers.large_candidates": CHOSEN["tiers.large_candidates"]},
    }
    for key in PARTS:
        make_part(home, key, {**settings.get(key, {}), **edited.get(key, {})})
    result = make_bundle(configuration)
    assert named in result
    assert "Run `rerankops run`" in result


def test_no_bundle_is_made_of_parts_that_were_not_made_from_each_other(home: Path) -> None:
    old = make_part(home, keys.LARGE_RERANKER, {"training.seed": 1})
    for key in PARTS:
        if key != keys.LARGE_RERANKER:
            uses = key in {COMPACT_RERANKER, keys.SCORED_CANDIDATES}
            make_part(home, key, {}, {old.asset: old.data_version} if uses else {})
    new = make_part(home, keys.LARGE_RERANKER, {"training.seed": 2})
    result = make_bundle({})
    assert f"training/large_reranker {old.data_version}, the current one is {new.data_version}" in result
