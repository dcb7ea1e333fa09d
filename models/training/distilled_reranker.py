"""The cross-encoders that are distilled from the large one as artifacts; they learn on lists of callers too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from models.cross_encoder.scorer import Progress
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.fine_tuning import train_student
from models.training.steps import DISTILLED_RERANKERS
from models.weights import weights_digest


def make_distilled_reranker(
    store: ArtifactStore,
    settings: Settings,
    tier: str,
    training_examples: Artifact,
    large_reranker: Artifact,
    logged_lists: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """The trained model of `tier`."""
    step, base_model = DISTILLED_RERANKERS[tier], settings.training.students[tier].base_model
    inputs = (training_examples, large_reranker, logged_lists)
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
    settings: TrainingSettings,
    checkpoints: Path,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Train the model into `folder`, going on from `checkpoints` after a kill; return the training's report."""
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
