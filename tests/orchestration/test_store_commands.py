"""`rerankops lineage` and `rerankops gc` as processes, on a small deployment."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from models.records.database import Database
from models.records.ledger import Ledger
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from tests.commands import clean_environment, run_command
from tests.releases import release_bundle

OLD_S = 40 * 86400


def make(store: ArtifactStore, asset: str, text: str, *inputs: Artifact) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "words.txt").write_text(f"{asset} {text}")
        return {"dagster/row_count": 7, "source": "beir /data/scifact"}

    versions = {item.asset: item.data_version for item in inputs} or {"source": f"digest of {text}"}
    return store.get_or_create(asset, code_version="c1", inputs=versions, settings={"index.k": text}, build=build)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a released bundle, and one that nothing refers to."""
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    for text in ("served", "forgotten"):
        bundle = make(store, RELEASE_CANDIDATE, text, make(store, "corpus/passages", text))
        if text == "served":
            database = Database(f"sqlite:///{tmp_path / 'rerankops.db'}")
            database.migrate()
            release_bundle(Ledger(database), bundle.data_version)
            database.close()
    for path in (tmp_path / "artifacts" / "steps").rglob("*.json"):
        then = time.time() - OLD_S
        os.utime(path, (then, then))
    return tmp_path


def rerankops(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, env=clean_environment(RERANKOPS_HOME=str(home)))


def files(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in (home / "artifacts").rglob("*") if path.is_file()}


def test_gc_tells_first_and_deletes_when_told(home: Path) -> None:
    before = files(home)
    dry = rerankops(home, "gc")
    assert dry.returncode == 0, dry.stderr
    assert files(home) == before
    assert "Would be deleted" in dry.stdout
    assert "to delete: 2 artifacts, 2 steps" in dry.stdout
    assert "champion r-" in dry.stdout
    assert "rerankops gc --yes" in dry.stdout

    value = json.loads(rerankops(home, "gc", "--json").stdout)
    assert not value["deleted"]
    doomed = {item["data_version"] for item in value["delete"]["artifacts"]}
    assert len(doomed) == 2
    assert {item["data_version"] for item in value["keep"]}.isdisjoint(doomed)

    done = rerankops(home, "gc", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert {item["data_version"] for item in json.loads(done.stdout)["delete"]["artifacts"]} == doomed
    left = files(home)
    assert left < before
    assert not any(version in name for version in doomed for name in left)
    assert "to delete: 0 artifacts, 0 steps" in rerankops(home, "gc").stdout


def test_gc_deletes_what_evaluations_made_and_no_recent_one_used(home: Path) -> None:
    folder, then = home / "evaluations", time.time() - OLD_S
    evaluated = ArtifactStore(str(folder), folder / "cache")
    ablated = ArtifactStore(str(folder / "ablations" / "artifacts"), folder / "ablations" / "cache")
    old, page = [make(store, "corpus/passages", "old") for store in (evaluated, ablated)], folder / "pages" / "old.html"
    page.parent.mkdir()
    for name in ("old.html", "new.html"):
        (page.parent / name).write_text("<p>")
    for path in (page, *folder.rglob("steps/**/*.json")):
        os.utime(path, (then, then))
    recent = [make(store, "corpus/passages", "recent") for store in (evaluated, ablated)]
    last = make(ablated, "index/candidates", "last")
    ablated.point(last)

    told = json.loads(rerankops(home, "gc", "--json").stdout)
    places = ["evaluations", "evaluations/ablations/artifacts"]
    assert [*told["evaluations"]] == places
    for index in places:
        named = [item["data_version"] for item in told["evaluations"][index]["delete"]["artifacts"]]
        assert named == [old[0].data_version]
    assert told["pages"] == [str(page)]
    assert all(item.folder.is_dir() for item in old)

    shown = rerankops(home, "gc", "--yes").stdout
    assert f"{folder}: of `rerankops evaluate`" in shown
    assert "of `rerankops pretrain`" not in shown
    assert not any(item.folder.exists() for item in old)
    assert not page.exists()
    assert (page.parent / "new.html").is_file()
    assert all(item.folder.is_dir() for item in (*recent, last))
    assert json.loads(rerankops(home, "gc", "--json").stdout)["pages"] == []


def test_lineage_prints_the_tree_from_the_release_to_the_source(home: Path) -> None:
    told = rerankops(home, "lineage", "champion")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].startswith("release r-")
    assert "by ana" in lines[0]
    assert lines[1].startswith(f"└── {RELEASE_CANDIDATE} ")
    assert "corpus/passages" in told.stdout
    assert "code c1" in lines[1]
    assert "7 rows" in lines[1]
    assert lines[-1].endswith("source beir /data/scifact digest of se")
    value = json.loads(rerankops(home, "lineage", "champion", "--json").stdout)
    assert [node["asset"] for node in value["nodes"].values()] == [RELEASE_CANDIDATE, "corpus/passages"]


def test_a_name_of_nothing_is_told_with_near_ones(home: Path) -> None:
    done = rerankops(home, "lineage", "corpus/passage")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: corpus/passage is no release, registered model or artifact",
        "Did you mean corpus/passages or passages?",
    ]


def test_gc_deletes_what_pretrainings_made_and_no_recent_one_used(home: Path) -> None:
    folder, then = home / "pretraining", time.time() - OLD_S
    store = ArtifactStore(str(folder), folder / "cache")
    old = make(store, "training/mixture", "old")
    for path in folder.rglob("steps/**/*.json"):
        os.utime(path, (then, then))
    recent = make(store, "training/mixture", "recent")
    shown = rerankops(home, "gc", "--yes").stdout
    assert f"{folder}: of `rerankops pretrain`" in shown
    assert not old.folder.exists()
    assert recent.folder.is_dir()
