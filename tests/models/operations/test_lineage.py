"""Lineage by every kind of name, on a real store, ledger and MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from models.operations.lineage import Lineage, trace
from models.records.database import Database
from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import CHALLENGER, CHAMPION, Tracking
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from tests.releases import release_bundle

SOURCE = "beir /data/scifact"


@dataclass
class Deployment:
    """Two generations, both released."""

    store: ArtifactStore
    ledger: Ledger
    tracking: Tracking
    passages: list[Artifact]
    indexes: list[Artifact]
    bundles: list[Artifact]
    releases: list[Release]

    def trace(self, name: str) -> Lineage:
        """The lineage of `name`."""
        return trace(name, self.store, self.ledger, self.tracking)


@pytest.fixture
def deployment(tmp_path: Path, tracking: Tracking) -> Iterator[Deployment]:
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    database.migrate()
    store = ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")
    built = Deployment(store, Ledger(database), tracking, [], [], [], [])
    for text in ("one", "two"):
        passages = make(store, "corpus/passages", text, source=f"digest of {text}")
        built.passages.append(passages)
        built.indexes.append(make(store, "index/dense_index", text, passages))
        built.bundles.append(make(store, RELEASE_CANDIDATE, text, passages, built.indexes[-1]))
        version = tracking.ensure_version("reranker", built.bundles[-1])
        tracking.set_alias(CHAMPION, version)
        built.releases.append(release_bundle(built.ledger, built.bundles[-1].data_version, version))
        for artifact in (passages, built.indexes[-1], built.bundles[-1]):
            store.point(artifact)
    yield built
    database.close()


def make(store: ArtifactStore, asset: str, text: str, *inputs: Artifact, **outside: str) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "words.txt").write_text(f"{asset} {text}")
        return {"dagster/row_count": len(text), "source": SOURCE}

    versions = {**{item.asset: item.data_version for item in inputs}, **outside}
    return store.get_or_create(asset, code_version="c1", inputs=versions, settings={"corpus.k": text}, build=build)


def name_of(artifact: Artifact) -> str:
    return f"{artifact.asset}@{artifact.data_version}"


def test_the_champion_goes_back_to_the_raw_source(deployment: Deployment) -> None:
    lineage = deployment.trace("champion")
    assert lineage.release is not None
    assert (lineage.release["release_id"], lineage.release["actor"]) == (deployment.releases[1].release_id, "ana")
    assert lineage.root == name_of(deployment.bundles[1])
    passages, index = name_of(deployment.passages[1]), name_of(deployment.indexes[1])
    assert lineage.nodes.keys() == {lineage.root, passages, index}
    assert lineage.nodes[lineage.root]["inputs"] == [passages, index]
    assert lineage.nodes[index]["inputs"] == [passages]
    node = lineage.nodes[passages]
    assert (node["code_version"], node["rows"], node["settings"]) == ("c1", 3, {"corpus.k": "two"})
    assert (node["outside"], node["source"], node["stored"]) == ({"source": "digest of two"}, SOURCE, True)
    assert node["seconds"] == deployment.passages[1].manifest.seconds


def test_releases_and_models_are_found_by_their_names(deployment: Deployment) -> None:
    first, second = (name_of(bundle) for bundle in deployment.bundles)
    assert deployment.trace("previous").root == first
    assert deployment.trace(deployment.releases[0].release_id).root == first
    assert deployment.trace("reranker@champion").root == second
    lineage = deployment.trace("reranker/1")
    assert lineage.root == first
    assert lineage.release is None
    assert lineage.model is not None
    assert (lineage.model["name"], lineage.model["version"], lineage.model["aliases"]) == ("reranker", "1", [])
    deployment.tracking.set_alias(CHALLENGER, "1")
    assert deployment.trace("challenger").root == first


def test_artifacts_are_found_by_asset_noun_version_and_beginning(deployment: Deployment) -> None:
    first, second = deployment.indexes
    assert deployment.trace("index/dense_index").root == name_of(second)
    assert deployment.trace("dense_index").root == name_of(second)
    assert deployment.trace(f"index/dense_index@{first.data_version}").root == name_of(first)
    assert deployment.trace(f"index/dense_index@{first.data_version[:6]}").root == name_of(first)
    assert deployment.trace(first.data_version[:8]).root == name_of(first)


def test_a_day_of_a_daily_asset_is_named(deployment: Deployment) -> None:
    days = ["2026-11-01", "2026-11-02"]
    for day in days:
        deployment.store.point(make(deployment.store, "monitoring/drift_report", day), day)
    lineage = deployment.trace("monitoring/drift_report@2026-11-01")
    assert lineage.nodes[lineage.root]["settings"] == {"corpus.k": "2026-11-01"}
    with pytest.raises(ArtifactError, match="one day at a time") as told:
        deployment.trace("drift_report")
    assert "drift_report@2026-11-02" in told.value.hint


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("index/dense_indx", "index/dense_index"),
        ("champoin", "champion"),
        ("passage", "passages"),
        ("reranker@chalenger", "reranker"),
        ("index/dense_index@ffffffffffff", "index/dense_index"),
    ],
)
def test_an_unknown_name_is_told_with_near_ones(deployment: Deployment, name: str, near: str) -> None:
    with pytest.raises(ArtifactError, match=f"{re.escape(name)} is no release, registered model or artifact") as told:
        deployment.trace(name)
    assert near in told.value.hint


def test_an_ambiguous_name_is_told_with_what_it_may_be(deployment: Deployment) -> None:
    make(deployment.store, "other/passages", "one")
    with pytest.raises(ArtifactError, match="several assets") as told:
        deployment.trace("passages")
    assert told.value.hint == "corpus/passages, other/passages"
    with pytest.raises(ArtifactError, match="beginning of several releases"):
        deployment.trace("r-2")


def test_before_the_first_release_it_says_so(tmp_path: Path, tracking: Tracking) -> None:
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    database.migrate()
    store = ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")
    for name in ("champion", "previous"):
        with pytest.raises(ArtifactError, match="there is no"):
            trace(name, store, Ledger(database), tracking)
    database.close()


def test_what_was_deleted_upstream_is_shown_as_far_as_it_is_known(deployment: Deployment) -> None:
    passages, index = deployment.passages[1], deployment.indexes[1]
    for path in sorted(passages.folder.rglob("*"), reverse=True):
        path.unlink()
    passages.folder.rmdir()
    node = deployment.trace("index/dense_index").nodes[name_of(passages)]
    assert (node["stored"], node["known"], node["rows"]) == (False, True, 3)
    deployment.store.files.delete(f"steps/{passages.asset}/{passages.manifest.step}.json")
    node = deployment.trace(name_of(index)).nodes[name_of(passages)]
    assert (node["stored"], node["known"], node["inputs"]) == (False, False, [])


def test_one_content_of_two_computations_is_traced_to_the_one_that_agrees(deployment: Deployment) -> None:
    def same(folder: Path) -> dict[str, Any]:
        (folder / "queries.txt").write_text("the same queries")
        return {}

    for passages in deployment.passages:
        sets = deployment.store.get_or_create(
            "corpus/evaluation_set",
            code_version="c",
            inputs={passages.asset: passages.data_version},
            settings={},
            build=same,
        )
        bundle = make(deployment.store, RELEASE_CANDIDATE, f"with {passages.data_version}", passages, sets)
        nodes = deployment.trace(name_of(bundle)).nodes
        assert nodes[name_of(sets)]["inputs"] == [name_of(passages)]
