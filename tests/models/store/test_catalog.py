"""What an artifact goes back to, where several computations gave the same content."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from models.store.artifacts import Artifact, ArtifactStore
from models.store.catalog import Catalog


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")


def make(store: ArtifactStore, asset: str, content: str, *inputs: Artifact, **outside: str) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "content.txt").write_text(content)
        return {}

    versions = {item.asset: item.data_version for item in inputs} | {"source": content}
    return store.get_or_create(asset, code_version="1", inputs=versions | outside, settings={}, build=build)


def origin(store: ArtifactStore, artifact: Artifact) -> dict[str, str]:
    """Data versions behind an artifact."""
    manifests = Catalog.read(store).origin(artifact.manifest)
    return {asset: manifest.data_version for asset, manifest in manifests.items()}


def step_file(store: ArtifactStore, artifact: Artifact) -> Path:
    return store.files.path(f"steps/{artifact.asset}/{artifact.manifest.step}.json")


def test_everything_is_found_and_what_is_outside_is_not_taken_for_an_asset(store: ArtifactStore) -> None:
    before = make(store, "corpus/set", "before")
    read = make(store, "corpus/rows", "rows")
    frozen = make(store, "corpus/set", "set", read, previous=before.data_version)
    bundle = make(store, "release/bundle", "bundle", frozen)
    assert origin(store, bundle) == {item.asset: item.data_version for item in (bundle, frozen, read)}


def test_of_two_computations_the_one_counts_that_agrees_with_the_rest(store: ArtifactStore) -> None:
    old, new = make(store, "corpus/rows", "old"), make(store, "corpus/rows", "new")
    same = make(store, "corpus/set", "same", old)
    assert make(store, "corpus/set", "same", new).data_version == same.data_version
    for rows in (old, new):
        mined = make(store, "training/examples", f"of {rows.data_version}", rows)
        bundle = make(store, "release/bundle", f"of {rows.data_version}", same, mined)
        assert origin(store, bundle)["corpus/rows"] == rows.data_version


def test_of_two_that_agree_the_one_used_last_counts(store: ArtifactStore) -> None:
    rows = [make(store, "corpus/rows", content) for content in ("old", "new")]
    sets = [make(store, "corpus/set", "same", item) for item in rows]
    bundle = make(store, "release/bundle", "bundle", sets[0])
    for last in (1, 0, 1):
        for number, item in enumerate(sets):
            moment = 1_000_000 + (number == last)
            os.utime(step_file(store, item), (moment, moment))
        assert origin(store, bundle)["corpus/rows"] == rows[last].data_version


def test_two_versions_of_one_asset_are_named_with_who_was_made_of_them(store: ArtifactStore) -> None:
    old, new = make(store, "corpus/rows", "old"), make(store, "corpus/rows", "new")
    mined, frozen = make(store, "training/examples", "mined", old), make(store, "corpus/set", "set", new)
    bundle = make(store, "release/bundle", "bundle", mined, frozen)
    wanted = (
        f"training/examples was made from corpus/rows {old.data_version}, corpus/set from {new.data_version}\n"
        "Run `rerankops run`"
    )
    with pytest.raises(ArtifactError, match=re.escape(wanted)):
        origin(store, bundle)


def test_a_step_that_was_deleted_still_says_what_made_it_first_and_what_is_gone_is_named(store: ArtifactStore) -> None:
    rows = make(store, "corpus/rows", "rows")
    bundle = make(store, "release/bundle", "bundle", rows)
    step_file(store, rows).unlink()
    assert origin(store, bundle)["corpus/rows"] == rows.data_version
    (rows.folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=f"what corpus/rows {rows.data_version} was made from"):
        origin(store, bundle)
