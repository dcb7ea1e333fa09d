"""Homes of deployments and artifacts in real stores, as many tests need them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.resources import Deployment
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json, digest_json
from models.store.tables import write_table
from models.training.corpus_defaults import FILE
from models.training.steps import CORPUS_DEFAULTS

Tables = Mapping[str, pd.DataFrame]


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Deployment:
    """A deployment in `home` with default settings, apart from `RERANKOPS_...` given by name."""
    file = home / "rerankops.toml"
    file.write_text("[presets.demo]\n", encoding="utf-8")
    monkeypatch.setenv("RERANKOPS_HOME", str(home))
    monkeypatch.setenv("RERANKOPS_SETTINGS", str(file))
    for name, value in settings.items():
        monkeypatch.setenv(f"RERANKOPS_{name}", value)
    return Deployment()


def write_artifact(
    store: ArtifactStore,
    asset: str,
    tables: Tables,
    files: Mapping[str, bytes] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Artifact:
    """Put tables and files into the store as a new version of `asset`, made from `inputs`."""

    def build(folder: Path) -> dict[str, Any]:
        for name, table in tables.items():
            write_table(table, folder / name)
        for name, data in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return {}

    content = {name: table.to_json(date_format="iso") for name, table in tables.items()} | {
        name: data.decode() for name, data in (files or {}).items()
    }
    return store.get_or_create(
        asset, code_version="1", inputs={**(inputs or {}), "content": digest_json(content)}, settings={}, build=build
    )


def write_corpus_defaults(store: ArtifactStore, settings: Settings, values: Mapping[str, int | str]) -> Artifact:
    """Put what `index/corpus_defaults` chooses under the settings into the store, as the current choice."""
    stored = {"values": dict(values), "reasons": dict.fromkeys(values, "as the test wants it"), "facts": {}}

    def build(folder: Path) -> dict[str, Any]:
        (folder / FILE).write_bytes(canonical_json(stored))
        return {}

    artifact = store.get_or_create(
        CORPUS_DEFAULTS.name,
        code_version="1",
        inputs={"content": digest_json(stored)},
        settings=CORPUS_DEFAULTS.values(settings),
        build=build,
    )
    store.point(artifact)
    return artifact


def write_trained(folder: Path, content: str, asset: str = "release/release_candidate") -> Artifact:
    """Put an artifact of one file into a store in `folder`, with a summary as a training has."""
    store = ArtifactStore(str(folder / "artifacts"), folder / "cache")

    def build(scratch: Path) -> dict[str, object]:
        (scratch / "file").write_text(content)
        return {"loss": [[1, 0.9], [2, 0.5]], "development": [[2, 0.7]], "lists": 7, "note": "text"}

    return store.get_or_create(asset, code_version="1", inputs={}, settings={"content": content}, build=build)


def shown(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """Metadata of an evaluation as plain values."""
    return {name: value.value for name, value in evaluation.metadata.items()}
