from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.corpus.versions import TABLES, corpus_versions, tables_of
from models.errors import ArtifactError
from models.store.artifacts import Artifact, ArtifactStore
from tests.releases import release_of, versions_of


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")


def read(store: ArtifactStore, source: str, passages: str, tables: tuple[str, ...] = TABLES) -> dict[str, Artifact]:
    """One reading of a source, whose passages are the text `passages`."""
    result = {}
    for asset in tables:

        def build(folder: Path, asset: str = asset) -> dict[str, Any]:
            content = passages if asset == TABLES[0] else f"{asset} of {source}"
            (folder / "table.txt").write_text(content)
            return {"documents": 2, "passages": len(passages)}

        result[asset] = store.get_or_create(
            asset, code_version="1", inputs={"source": source}, settings={"corpus.passage_tokens": 192}, build=build
        )
    return result


def versions(tables: dict[str, Artifact]) -> dict[str, str]:
    return {name: artifact.data_version for name, artifact in tables.items()}


def test_versions_are_listed_with_their_rows_and_releases(store: ArtifactStore) -> None:
    monday, tuesday = read(store, "monday", "abc"), read(store, "tuesday", "abcd")
    store.point(monday[TABLES[0]])
    names = [tables[TABLES[0]].data_version for tables in (monday, tuesday)]
    release = release_of(replace(versions_of("b"), corpus_version=names[1]), "r7")
    result = {item.data_version: item for item in corpus_versions(store, [release])}
    assert set(result) == set(names)
    assert [result[name].rows for name in names] == [{"documents": 2, "passages": 3}, {"documents": 2, "passages": 4}]
    assert [result[name].current for name in names] == [True, False]
    assert [result[name].releases for name in names] == [(), ("r7",)]


def test_the_tables_of_a_version_are_those_of_one_reading(store: ArtifactStore) -> None:
    monday, tuesday = read(store, "monday", "abc"), read(store, "tuesday", "abcd")
    for tables in (monday, tuesday):
        name = tables[TABLES[0]].data_version
        assert versions(tables_of(store, name)) == versions(tables)
        assert versions(tables_of(store, name[:8])) == versions(tables)


def test_of_two_readings_with_the_same_passages_the_last_is_taken(store: ArtifactStore) -> None:
    read(store, "monday", "abc")
    tuesday = read(store, "tuesday", "abc")
    manifest = tuesday[TABLES[0]].manifest
    later = replace(manifest, created_at="2100-01-01T00:00:00+00:00")
    store.files.write(f"steps/{TABLES[0]}/{manifest.step}.json", later.to_json())
    assert versions(tables_of(store, manifest.data_version)) == versions(tuesday)
    assert [item.read_at for item in corpus_versions(store)] == [later.created_at]


def test_unknown_ambiguous_and_incomplete_versions_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="no version 'abc'") as unknown:
        tables_of(store, "abc")
    assert "rerankops corpus versions" in unknown.value.hint
    read(store, "monday", "abc")
    read(store, "tuesday", "abcd")
    with pytest.raises(ArtifactError, match="is the beginning of"):
        tables_of(store, "")
    incomplete = read(store, "wednesday", "abcde", TABLES[:2])[TABLES[0]]
    with pytest.raises(ArtifactError, match="were deleted"):
        tables_of(store, incomplete.data_version)
    assert incomplete.data_version not in {item.data_version for item in corpus_versions(store)}


def test_what_a_run_points_at_is_current_for_it_alone_until_it_is_promoted(tmp_path: Path) -> None:
    root, cache = str(tmp_path / "artifacts"), tmp_path / "cache"
    deployment, run = ArtifactStore(root, cache), ArtifactStore(root, cache, "run-1")
    monday, tuesday = (read(deployment, day, day)[TABLES[0]] for day in ("monday", "tuesday"))
    deployment.point(tuesday)
    assert run.require(TABLES[0]) == tuesday
    run.point(monday)
    assert run.require(TABLES[0]) == monday
    assert deployment.require(TABLES[0]) == tuesday
    assert ArtifactStore(root, cache, "run-2").require(TABLES[0]) == tuesday
    run.forget_run()
    assert run.require(TABLES[0]) == tuesday
    run.point(monday)
    run.promote()
    assert deployment.require(TABLES[0]) == monday
    assert not list((tmp_path / "artifacts" / "runs").rglob("*.json"))
