"""The compact cross-encoder as an artifact, distilled from the large one, also on lists that callers asked for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from models.cross_encoder.scorer import Progress
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.fine_tuning import train_compact
from models.training.steps import COMPACT_RERANKER
from models.weights import weights_digest


def make_compact_reranker(
    store: ArtifactStore,
    settings: Settings,
    training_examples: Artifact,
    large_reranker: Artifact,
    logged_lists: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """The trained model."""
    base_model = settings.training.compact_base_model
    inputs = (training_examples, large_reranker, logged_lists)
    outside = {"weights": weights_digest(base_model)} if base_model else {}
    versions = [artifact.data_version for artifact in inputs]
    checkpoints = COMPACT_RERANKER.scratch(store, COMPACT_RERANKER.values(settings), outside, versions)
    return COMPACT_RERANKER.get_or_create(
        store,
        settings,
        partial(train, *inputs, settings.training, checkpoints, progress),
        inputs=inputs,
        outside=outside,
    )


def train(
    training_examples: Artifact,
    large_reranker: Artifact,
    logged_lists: Artifact,
    settings: TrainingSettings,
    checkpoints: Path,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Train the model into `folder`, going on from `checkpoints` after a kill; return the training's report."""
    report = train_compact(
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
