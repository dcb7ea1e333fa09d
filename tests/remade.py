"""The small deployment's candidate made of other tables: what somebody gets who goes on although a check failed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from models.store.artifacts import Artifact, ArtifactStore, Manifest, object_place, step_place
from models.store.catalog import Catalog
from models.store.durable_files import link_or_copy
from models.store.tables import write_table
from tests.small_bundle import Small

Content = pd.DataFrame | bytes
Changes = Mapping[str, Mapping[str, Content]]
"""Files of artifacts, by asset and name, that are others than those of the small deployment."""


def remake(
    small: Small,
    store: ArtifactStore,
    changes: Changes,
    *others: Artifact,
    source: str = "the handbook",
    candidate: Artifact | None = None,
) -> dict[str, Artifact]:
    """All that a candidate of `small`, by default the first, goes back to, itself and `others`, put into `store` by
    asset name.

    Files are those of `small` but for `changes`, and each artifact names as its inputs the versions in `store`: the
    lineage is that of a candidate which was made of the changed tables. Models and numbers stay those of `small`. Each
    `source` is a reading of its own.
    """
    catalog = Catalog.read(small.store)
    beside = (small.artifacts["corpus/quarantined_rows"], *others)
    manifests = catalog.origin((candidate or small.first.bundle).manifest) | {
        item.asset: item.manifest for item in beside
    }
    made: dict[str, Artifact] = {}

    def make(asset: str) -> Artifact:
        if asset not in made:
            manifest = manifests[asset]
            inputs = {
                name: make(name).data_version if name in manifests else version
                for name, version in manifest.inputs.items()
            } | {"source": source}
            made[asset] = _put(small.store, store, manifest, inputs, changes.get(asset, {}))
        return made[asset]

    for asset in manifests:
        make(asset)
    return made


def _put(
    source: ArtifactStore,
    store: ArtifactStore,
    manifest: Manifest,
    inputs: Mapping[str, str],
    changes: Mapping[str, Content],
) -> Artifact:
    artifact = source.made_by(manifest)
    assert artifact is not None
    if not changes:
        return _link(artifact, store, inputs)

    def build(folder: Path) -> Mapping[str, Any]:
        for name in {*artifact.manifest.files, *changes}:
            content = changes.get(name)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            elif content is not None:
                write_table(content, folder / name)
            else:
                link_or_copy(artifact.path(name), folder / name)
        return manifest.summary

    return store.get_or_create(
        manifest.asset, code_version=manifest.code_version, inputs=inputs, settings=manifest.settings, build=build
    )


def _link(artifact: Artifact, store: ArtifactStore, inputs: Mapping[str, str]) -> Artifact:
    """The same content in `store`, which has the digests of its files already, as made from `inputs`."""
    folder = store.files.path(object_place(artifact.asset, artifact.data_version))
    if not folder.exists():
        shutil.copytree(artifact.folder, folder, copy_function=link_or_copy)
    manifest = replace(artifact.manifest, inputs=dict(inputs))
    store.files.write(step_place(manifest.asset, manifest.step), manifest.to_json())
    return Artifact(manifest, folder)
