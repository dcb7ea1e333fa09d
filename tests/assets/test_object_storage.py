"""The corpus and index assets with their artifacts on a real S3 server, on two machines that share it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets import corpus, index
from assets.resources import ArtifactIOManager
from models.store.artifacts import ArtifactStore
from tests.deployments import use_home
from tests.handbook import handbook, write_encoder, write_source
from tests.object_storage import SECRET


def materialize(
    home: Path, root: str, source: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[str, bool]]:
    """Corpus and index made in `home` with the artifacts at `root`: version, and whether it was reused, by asset."""
    home.mkdir()
    settings = {"CORPUS__SOURCE": "beir", "CORPUS__PATH": str(source), "STORAGE__ARTIFACTS": root}
    settings |= {"ENCODER__MODEL": str(encoder), "TRAINING__BASE_MODEL": str(encoder)}
    deployment = use_home(home, monkeypatch, **settings)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*corpus.ASSETS, *index.ASSETS],
            instance=instance,
            resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
        )
    assert result.success
    observed = {}
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        name = materialization.asset_key.to_user_string()
        version = deployment.store().require(name).data_version
        observed[name] = (version, bool(materialization.metadata["reused"].value))
    return observed


def test_two_machines_share_what_one_has_made(
    s3_root: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, source = s3_root(), write_source(tmp_path / "source", handbook())
    encoder = write_encoder(tmp_path / "encoder")
    first = materialize(tmp_path / "first", root, source, encoder, monkeypatch)
    assert {"corpus/passages", "index/dense_index", "index/candidates"} <= first.keys()
    assert not any(reused for _, reused in first.values())
    second = materialize(tmp_path / "second", root, source, encoder, monkeypatch)
    assert second == {name: (version, True) for name, (version, _) in first.items()}
    local = materialize(tmp_path / "local", "", source, encoder, monkeypatch)
    assert {name: version for name, (version, _) in local.items()} == {
        name: version for name, (version, _) in first.items()
    }
    store = ArtifactStore(root, tmp_path / "third")
    places = [*store.files.find("steps"), *store.files.find("objects")]
    assert not any(SECRET.encode() in (store.files.read(location) or b"") for location in places)
