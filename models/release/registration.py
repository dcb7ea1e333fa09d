"""What a deployment registers and logs in MLflow: trained models, evaluations and bundles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.evaluation.report import PAGE, QUALITY_COST
from models.records.mlflow_registry import CHALLENGER, VERSION_TAG, Tracking
from models.release.model_card import CARD, training_card
from models.store.artifacts import Artifact


def register_model(tracking: Tracking, artifact: Artifact, size: str, params: Mapping[str, Any]) -> str:
    """Log the training run of a model made now and register it; a reused model keeps its version. Returns the
    version."""
    run_id = None
    if not artifact.reused:
        summary = artifact.summary
        metrics = {name: float(value) for name, value in summary.items() if isinstance(value, int | float)}
        histories = {"train_loss": "loss", "development_ndcg_at_10": "development"}
        history = {
            name: [(int(step), float(value)) for step, value in summary.get(entry, [])]
            for name, entry in histories.items()
        }
        tags = {VERSION_TAG: artifact.data_version}
        run_id = tracking.log_run(f"{size}_reranker", params=params, metrics=metrics, tags=tags, history=history)
    name = f"{tracking.model_name}-{size}"
    version = tracking.ensure_version(name, artifact, run_id)
    tracking.describe_version(version, training_card(artifact, size, params), name)
    return version


def register_candidate(tracking: Tracking, bundle: Artifact, *, above: int = 0) -> tuple[str, str]:
    """Register a bundle with its model card as the challenger, under a number above `above`; one that is registered
    keeps its version. Returns the version and the card, in Markdown."""
    card = bundle.path(CARD).read_text(encoding="utf-8")
    version = tracking.ensure_version(tracking.model_name, bundle, above=above)
    tracking.describe_version(version, card)
    tracking.set_alias(CHALLENGER, version)
    return version, card


def log_evaluation(tracking: Tracking, artifact: Artifact) -> str:
    """Log the evaluation as an MLflow run with its plot and page; returns the run id."""
    metrics = {name: float(value) for name, value in artifact.summary.items() if isinstance(value, int | float)}
    files = [artifact.path(name) for name in (QUALITY_COST, PAGE, "report/evaluation.json")]
    tags = {"rerankops.data_version": artifact.data_version}
    return tracking.log_run(
        "offline_evaluation", params=artifact.manifest.inputs, metrics=metrics, tags=tags, files=files
    )
