"""The compact cross-encoder as an artifact, distilled from the large one, also on lists that callers asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from models.corpus.passage_table import PassageTable
from models.cross_encoder.scorer import Progress
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.fine_tuning import train_compact
from models.training.logged_lists import LoggedList, logged_digest, logged_table
from models.training.steps import COMPACT_RERANKER
from models.weights import weights_digest


def make_compact_reranker(
    store: ArtifactStore,
    settings: Settings,
    training_examples: Artifact,
    large_reranker: Artifact,
    passages: Artifact,
    logged: Sequence[LoggedList] = (),
    progress: Progress | None = None,
) -> Artifact:
    """The trained model. Passages are an input only where `logged` lists need their texts: without any, a document
    more does not train the model anew."""
    base_model = settings.training.compact_base_model
    inputs = (training_examples, large_reranker, *((passages,) if logged else ()))
    outside = {"weights": weights_digest(base_model)} if base_model else {}
    if logged:
        outside["decisions"] = logged_digest(logged)
    versions = [artifact.data_version for artifact in inputs]
    checkpoints = COMPACT_RERANKER.scratch(store, COMPACT_RERANKER.values(settings), outside, versions)
    return COMPACT_RERANKER.get_or_create(
        store,
        settings,
        partial(train, training_examples, large_reranker, passages, logged, settings.training, checkpoints, progress),
        inputs=inputs,
        outside=outside,
    )


def train(
    training_examples: Artifact,
    large_reranker: Artifact,
    passages: Artifact,
    logged: Sequence[LoggedList],
    settings: TrainingSettings,
    checkpoints: Path,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """Train the model into `folder`, going on from `checkpoints` after a kill; return the training's report."""
    length = settings.negatives + 1
    texts = PassageTable(passages.path("passages.parquet"))
    report = train_compact(
        training_examples.read_table("training_examples.parquet"),
        large_reranker.folder,
        settings,
        folder,
        progress,
        logged=logged_table(logged, texts, length) if logged else None,
        development=training_examples.read_table("development_lists.parquet"),
        checkpoints=checkpoints,
    )
    return report.to_dict()
