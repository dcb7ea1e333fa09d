"""Going back to a past version of the corpus, from the command line to Dagster's events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from models.store.artifacts import ArtifactStore
from tests.commands import clean_environment, run_command
from tests.docs_corpus import docs_settings, write_docs_corpus

INDEXES = 'group:"corpus" or group:"index"'
ASSETS = ("corpus/passages", "corpus/queries", "index/passage_embeddings", "index/dense_index", "index/candidates")

Command = Callable[..., Any]


@pytest.fixture
def command(tmp_path: Path, docs_encoder: Path) -> Command:
    """A function that runs the command line with --json in a home of its own; the value that it printed."""
    settings = {**docs_settings(tmp_path / "docs"), "encoder.model": docs_encoder}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    environment = clean_environment(RERANKOPS_HOME=str(tmp_path / "home"), RERANKOPS_PRESET="tiny")

    def run(*arguments: str, code: int = 0) -> Any:
        done = run_command(*arguments, *options, "--json", env=environment)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    return run


def current(home: Path) -> dict[str, str]:
    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    return {name: store.require(name).data_version for name in ASSETS}


def shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The data versions that Dagster shows."""
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    result = {}
    with dg.DagsterInstance.get() as instance:
        for name in ASSETS:
            event = instance.get_latest_materialization_event(dg.AssetKey(name.split("/")))
            assert event is not None
            assert event.asset_materialization is not None
            result[name] = (event.asset_materialization.tags or {})["dagster/data_version"]
    return result


def test_a_past_version_is_listed_and_its_indexes_are_made_current_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, docs = tmp_path / "home", tmp_path / "docs"
    assert command("corpus", "versions") == []
    write_docs_corpus(docs, documents=70)
    command("run", "--select", INDEXES)
    first = current(home)
    write_docs_corpus(docs, documents=70, left_out=2)
    command("run", "--select", INDEXES)
    second = current(home)
    assert all(first[name] != second[name] for name in ASSETS)

    names = [first["corpus/passages"], second["corpus/passages"]]
    listed = {item["data_version"]: item for item in command("corpus", "versions")}
    assert set(listed) == set(names)
    assert [listed[name]["current"] for name in names] == [False, True]
    assert [listed[name]["rows"]["documents"] for name in names] == [70, 68]

    steps = sorted((home / "artifacts" / "steps").rglob("*.json"))
    done = command("backfill", names[0][:12])
    assert (done["outcome"], done["failures"]) == ("made", {})
    assert current(home) == first
    assert shown(home, monkeypatch) == first
    assert sorted((home / "artifacts" / "steps").rglob("*.json")) == steps, "nothing was made anew"
    assert [item["data_version"] for item in command("corpus", "versions") if item["current"]] == names[:1]

    wrong = command("backfill", "0000", code=1)
    assert "no version '0000' of the corpus" in wrong["error"]
    assert "rerankops corpus versions" in wrong["hint"]
    assert current(home) == first
