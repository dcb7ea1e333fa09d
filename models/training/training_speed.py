"""How long a pair takes in training on this machine, so that a training fits into a budget of minutes."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

from models.contracts.tiers import DISTILLED_TIERS
from models.errors import SettingsError
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.fine_tuning import train_large, train_student
from models.training.steps import TRAINING_SPEED

_STEPS, _WARM = 16, 4
"""Optimizer steps of a measurement, and those of them that are not timed."""


def pairs_within(store: ArtifactStore, settings: Settings, mixture: Artifact, minutes: float) -> dict[str, int]:
    """`training.large_pairs` and those of the distilled models, by key, cut alike so that they take `minutes` at most.

    The speed is measured once per examples and settings: a call after a kill gets the same pairs. Raises
    `SettingsError` where there is no time for a single step of each.
    """
    training = settings.training
    wanted = {"large_pairs": training.large_pairs}
    wanted |= {f"{tier.name}_pairs": training.students[tier.name].pairs for tier in DISTILLED_TIERS}
    if not minutes:
        return wanted
    key = {"inputs": {mixture.asset: mixture.data_version}, "settings": training.model_dump(mode="json")}
    seconds = TRAINING_SPEED.remember(store, key, partial(measure, mixture, training))
    share = 60 * minutes / sum(seconds[name] * count for name, count in wanted.items())
    fitting = {name: min(count, int(share * count)) for name, count in wanted.items()}
    if min(fitting.values()) < training.batch_queries * (1 + training.negatives):
        raise SettingsError(
            f"pretraining.minutes: {minutes:g} minutes are too few for one training step of each model",
            "Give it more minutes.",
        )
    return fitting


def measure(mixture: Artifact, settings: TrainingSettings) -> dict[str, float]:
    """Seconds of a pair in the training of each model, by the key of its pairs."""
    examples = mixture.read_table("training_examples.parquet")
    pairs = _STEPS * settings.batch_queries * (1 + settings.negatives)
    few = settings.model_copy(update={"large_pairs": pairs, **{f"{t.name}_pairs": pairs for t in DISTILLED_TIERS}})
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "large"
        seconds = {"large_pairs": _timed(partial(train_large, examples, few, large), few)}
        for tier in DISTILLED_TIERS:
            train = partial(train_student, tier.name, examples, large, few, Path(scratch) / tier.name)
            seconds[f"{tier.name}_pairs"] = _timed(train, few)
    return seconds


def _timed(train: partial[object], settings: TrainingSettings) -> float:
    """Seconds of a pair, by the times at which steps ended."""
    ends: list[float] = []
    train(progress=lambda done, total: ends.append(time.perf_counter()))
    warm = min(_WARM, len(ends) - 1)
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm) / (settings.batch_queries * (1 + settings.negatives))
