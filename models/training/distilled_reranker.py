"""The cross-encoders that are distilled from the large one as artifacts; they learn on lists of callers too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from models.cross_encoder.scorer import Progress
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json
from models.training.fine_tuning import train_student
from models.training.steps import DISTILLED_RERANKERS
from models.weights import weights_digest

LEFT_OUT = "left_out.json"
"""The only file of an artifact in the place of a model that releases do not have."""


def is_left_out(artifact: Artifact) -> bool:
    """Whether releases have no such model."""
    return LEFT_OUT in artifact.manifest.files


def make_distilled_reranker(
    store: ArtifactStore,
    settings: Settings,
    tier: str,
    training_examples: Artifact,
    large_reranker: Artifact,
    logged_lists: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """The trained model of `tier`, or a note that releases have none where `tiers.models` leaves it out."""
    step, base_model = DISTILLED_RERANKERS[tier], settings.training.students[tier].base_model
    inputs = (training_examples, large_reranker, logged_lists)
    if tier not in settings.tiers.models:
        build = partial(train, tier, *inputs, None, Path(), progress)
        return step.get_or_create(store, settings, build, values={"tiers.models": settings.tiers.models})
    outside = {"weights": weights_digest(base_model)} if base_model else {}
    versions = [artifact.data_version for artifact in inputs]
    checkpoints = step.scratch(store, step.values(settings), outside, versions)
    return step.get_or_create(
        store,
        settings,
        partial(train, tier, *inputs, settings.training, checkpoints, progress),
        inputs=inputs,
        outside=outside,
    )


def train(
    tier: str,
    training_examples: Artifact,
    large_reranker: Artifact,
    logged_lists: Artifact,
    settings: TrainingSettings | None,
    checkpoints: Path,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Train the model into `folder`, going on from `checkpoints` after a kill; return the training's report.

    Without `settings` releases have no such model, and that is all that is written.
    """
    if settings is None:
        (folder / LEFT_OUT).write_bytes(canonical_json({"tier": tier}))
        return {"left_out": True}
    report = train_student(
        tier,
        training_examples.read_table("training_examples.parquet"),
        large_reranker.folder,
        settings,
        folder,
        progress,
        logged=logged_lists.read_table("logged_lists.parquet"),
        development=training_examples.read_table("development_lists.parquet"),
        checkpoints=checkpoints,
    )
    return report.to_dict()
