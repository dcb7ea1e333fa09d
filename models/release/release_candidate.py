"""The serving bundle as an artifact."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.release.bundle import write_bundle
from models.release.steps import RELEASE_CANDIDATE
from models.store.provenance import require_one_origin

if TYPE_CHECKING:
    from models.release.parts import BundleParts
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore


def make_release_candidate(
    store: ArtifactStore, settings: Settings, parts: BundleParts, scored_candidates: Artifact
) -> Artifact:
    """The bundle of `parts`, with all the settings that they were made with.

    Raises `ArtifactError` where the parts were not made from each other, or with different settings. The scored
    candidates are no part, but calibration and evaluation go back to the models through them.
    """
    inputs = parts.artifacts()
    made_with = require_one_origin((*inputs, scored_candidates), RELEASE_CANDIDATE.values(settings))
    return RELEASE_CANDIDATE.get_or_create(
        store, settings, partial(assemble, parts, settings), inputs=inputs, values=made_with
    )


def assemble(parts: BundleParts, settings: Settings, folder: Path) -> dict[str, Any]:
    """Write the bundle; return the versions that it is called by."""
    bundle = write_bundle(folder, parts, settings)
    return {name: bundle[name] for name in ("corpus_version", "index_version")}
