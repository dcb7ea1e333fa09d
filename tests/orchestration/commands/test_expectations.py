"""`rerankops expectations profile`: what it writes, when it writes nothing, that a profile holds for its version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from models.errors import ArtifactError, SettingsError
from models.expectations import validation as expectations
from models.expectations.accepted import ACCEPTED
from models.expectations.profiles import PROFILED
from models.expectations.tables import SUITE_OF, table_of
from orchestration.commands.expectations import app
from tests.checks import corpus_tables
from tests.deployments import use_home, write_artifact


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    store = use_home(tmp_path, monkeypatch).store()
    tables = {
        "corpus/passages": {"passages.parquet": corpus_tables.passages()},
        "corpus/queries": {"queries.parquet": corpus_tables.queries()},
        "corpus/judgments": {"judgments.parquet": corpus_tables.judgments()},
        "corpus/evaluation_set": {
            "queries.parquet": corpus_tables.queries(train=0), "judgments.parquet": corpus_tables.judgments(70),
        },
    }  # fmt: skip
    built = {name: write_artifact(store, name, files) for name, files in tables.items()}
    for artifact in built.values():
        store.point(artifact)
    return built


def profile(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", *arguments])


def profiled(path: Path) -> list[dict[str, Any]]:
    return [item for item in json.loads(path.read_text())["expectations"] if item["meta"]["name"].startswith(PROFILED)]


@pytest.mark.heavy
def test_a_profile_stands_beside_the_suite_and_holds_for_its_version(
    artifacts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "suites"
    assert profile("--version", "current", "--output", str(folder), "--yes").exit_code == 0
    monkeypatch.setattr(expectations, "SUITES", folder)
    parameters = {"min_passages": 2, "max_characters": 2000, "min_test_queries": 6, "min_dev_queries": 2}
    for asset, suite in SUITE_OF.items():
        added = {item["meta"]["name"] for item in profiled(folder / f"{suite}.json")}
        assert len(added) >= 4
        assert {item["severity"] for item in profiled(folder / f"{suite}.json")} == {"warning"}
        table = table_of(asset, artifacts)
        report = expectations.validate(table, suite, {**parameters, "max_mean_positives": 10})
        assert added <= {outcome.name for outcome in report.results if outcome.success}
        fewer = expectations.validate(table.head(len(table) // 2), suite, {**parameters, "max_mean_positives": 10})
        assert f"{PROFILED}rows" in {outcome.name for outcome in fewer.results if not outcome.success}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert profile("--version", "current", "--output", str(folder), "--yes", "--margin", "0.5").exit_code == 0
    for path, data in before.items():
        assert path.read_bytes() != data
        again = json.loads(path.read_bytes())["expectations"]
        assert len(again) == len(json.loads(data)["expectations"]), "the profile before is replaced"


@pytest.mark.usefixtures("artifacts")
def test_nothing_is_written_in_silence(tmp_path: Path) -> None:
    folder = tmp_path / "suites"
    assert profile("passages", "--version", "current", "--output", str(folder), "--dry-run").exit_code == 0
    refused = profile("passages", "--version", "current", "--output", str(folder))
    assert isinstance(refused.exception, SettingsError)
    assert "add --yes" in refused.exception.hint
    assert not folder.exists()
    assert isinstance(profile("nothing").exception, SettingsError)


def test_the_accepted_version_is_profiled_once_there_is_one(
    artifacts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = profile("--yes", "--output", str(tmp_path / "suites"))
    assert isinstance(none.exception, ArtifactError)
    assert "--version current" in none.exception.hint
    store = use_home(tmp_path, monkeypatch).store()
    for artifact in artifacts.values():
        store.point(artifact, ACCEPTED)
    assert profile("judgments", "--yes", "--output", str(tmp_path / "suites")).exit_code == 0
    assert [path.name for path in (tmp_path / "suites").iterdir()] == ["judgments.json"]
