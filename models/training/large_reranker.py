"""The large cross-encoder as an artifact, fine-tuned on the training examples."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from models.contracts.tiers import distilled_tiers
from models.cross_encoder.scorer import Progress
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.fine_tuning import require_layers, train_large
from models.training.steps import LARGE_RERANKER
from models.weights import weights_digest


def make_large_reranker(
    store: ArtifactStore, settings: Settings, training_examples: Artifact, progress: Progress | None = None
) -> Artifact:
    """The trained model. Raises `SettingsError` for layers that the base model does not have, before it is trained."""
    require_layers(settings.training, distilled_tiers(settings.tiers))
    outside = {"weights": weights_digest(settings.training.base_model)}
    made_with = LARGE_RERANKER.values(settings), outside, [training_examples.data_version]
    checkpoints = LARGE_RERANKER.scratch(store, *made_with)
    return LARGE_RERANKER.get_or_create(
        store,
        settings,
        partial(train, training_examples, settings.training, checkpoints, progress),
        inputs=(training_examples,),
        outside=outside,
    )


def train(
    training_examples: Artifact,
    settings: TrainingSettings,
    checkpoints: Path,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Train the model into `folder`, going on from `checkpoints` after a kill; return the training's report."""
    report = train_large(
        training_examples.read_table("training_examples.parquet"),
        settings,
        folder,
        progress,
        development=training_examples.read_table("development_lists.parquet"),
        checkpoints=checkpoints,
    )
    return report.to_dict()
