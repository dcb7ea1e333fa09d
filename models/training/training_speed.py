"""How long a pair takes in training, so that a training fits into a budget of minutes: a few of its steps, timed.

A figure is kept in the store and taken over by later runs and other machines, so that pairs, and with them models, do
not change from run to run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from models.contracts.tiers import TierSpec, distilled_tiers
from models.cross_encoder.scorer import resolve_device
from models.errors import SettingsError
from models.settings import Settings, TrainingSettings, chosen
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import digest_json
from models.training.fine_tuning import mixed_precision, train_large, train_student
from models.training.steps import TRAINING_SPEED
from models.weights import weights_digest

_STEPS, _WARM = 16, 4
"""Optimizer steps of a measurement, and those of them that are not timed."""
STUDENT_RATE = 0.73
"""Speed of the compact model, which is read with its teacher, over that of the large one: 50 of 68 pairs/s
(docs/training.md)."""

_WITHOUT_EFFECT = {
    "minutes", "pairs_per_second", "max_tokens", "pseudo_queries", "pseudo_kinds", "pseudo_documents", "max_queries",
    "draws", "seed", "learning_rate", "head_learning_rate", "warmup_share", "checkpoint_minutes", "leak_overlap",
    "leak_cosine", "negative_sources", "negative_depth", "negative_top_share", "random_share", "false_negative_margin",
    "false_negative_teacher", "logged_queries", "early_stopping", "evaluations", "development_queries",
}  # fmt: skip
"""Keys of [training], beside numbers of pairs, that do not change the time of a pair of a given length."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Pairs per second of the large model, and of one that is distilled from it."""

    large: float
    student: float

    @classmethod
    def of_large(cls, pairs_per_second: float) -> TrainingSpeed:
        """By the speed of the large model alone."""
        return cls(pairs_per_second, STUDENT_RATE * pairs_per_second)


def speed_of(
    store: ArtifactStore, distilled: Sequence[TierSpec], pairs: pd.DataFrame, settings: TrainingSettings
) -> TrainingSpeed:
    """The speed at `training.max_tokens`: what the settings say, or what was measured for them in this store, else
    measured now on lists of `pairs` (`query`, `passage`). `distilled` are the models that train besides the large
    one."""
    if settings.pairs_per_second:
        return TrainingSpeed.of_large(settings.pairs_per_second)
    key = {"settings": speed_key(settings, distilled), "tokens": chosen(settings.max_tokens)}
    lists = partial(_lists, pairs, 1 + settings.negatives, _STEPS * settings.batch_queries)
    seconds = TRAINING_SPEED.remember(store, key, partial(measure, lists, settings, distilled))
    slowest = max((value for name, value in seconds.items() if name != "large_pairs"), default=seconds["large_pairs"])
    return TrainingSpeed(1 / seconds["large_pairs"], 1 / slowest)


def speed_key(settings: TrainingSettings, distilled: Sequence[TierSpec]) -> str:
    """What a measured speed is of: models, device, precision, settings; not the machine, so that it is taken over."""
    names = [tier.name for tier in distilled]
    students = [settings.students[name].base_model for name in names]
    weights = [weights_digest(model) for model in (settings.base_model, *filter(None, students))]
    values = {
        key: value
        for key, value in settings.model_dump().items()
        if key not in _WITHOUT_EFFECT and not key.endswith("_pairs")
    }
    return digest_json([names, weights, resolve_device(settings.device), mixed_precision(settings), values])


def pairs_within(store: ArtifactStore, settings: Settings, mixture: Artifact, minutes: float) -> dict[str, int]:
    """`training.large_pairs` and those of the distilled models, by key, cut alike so that they take `minutes` at most.

    The speed is measured once per examples and settings: a call after a kill gets the same pairs. Raises
    `SettingsError` where there is no time for a single step of each.
    """
    training = settings.training
    wanted = {"large_pairs": chosen(training.large_pairs)}
    tiers = distilled_tiers(settings.tiers)
    wanted |= {f"{tier.name}_pairs": training.students[tier.name].pairs for tier in tiers}
    if not minutes:
        return wanted
    key = {"inputs": {mixture.asset: mixture.data_version}, "settings": training.model_dump(mode="json")}
    key["models"] = settings.tiers.models
    examples = partial(mixture.read_table, "training_examples.parquet")
    seconds = TRAINING_SPEED.remember(store, key, partial(measure, examples, training, tiers))
    share = 60 * minutes / sum(seconds[name] * count for name, count in wanted.items())
    fitting = {name: min(count, int(share * count)) for name, count in wanted.items()}
    if min(fitting.values()) < training.batch_queries * (1 + training.negatives):
        raise SettingsError(
            f"pretraining.minutes: {minutes:g} minutes are too few for one training step of each model",
            "Give it more minutes.",
        )
    return fitting


def measure(
    read_examples: Callable[[], pd.DataFrame], settings: TrainingSettings, distilled: Sequence[TierSpec]
) -> dict[str, float]:
    """Seconds of a pair in the training of the large model and of those distilled from it, by the key of its pairs."""
    examples = read_examples()
    pairs = _STEPS * settings.batch_queries * (1 + settings.negatives)
    counts = {"large_pairs": pairs, **{f"{tier.name}_pairs": pairs for tier in distilled}}
    few = settings.model_copy(update={**counts, "early_stopping": 0})
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "large"
        seconds = {"large_pairs": _timed(partial(train_large, examples, few, large), few)}
        for tier in distilled:
            train = partial(train_student, tier.name, examples, large, few, Path(scratch) / tier.name)
            seconds[f"{tier.name}_pairs"] = _timed(train, few)
    return seconds


def _lists(pairs: pd.DataFrame, size: int, count: int) -> pd.DataFrame:
    """`count` lists of a positive and `size` - 1 passages of others, in the columns of the training examples."""
    queries, passages = pairs["query"].tolist(), pairs["passage"].tolist()
    rows = [
        (f"q{number}", queries[number % len(queries)], passages[(number + place) % len(passages)], float(place == 0))
        for number in range(count)
        for place in range(size)
    ]
    table = pd.DataFrame(rows, columns=["query_id", "query", "passage", "label"])
    return table.assign(kind=["positive" if label else "hard" for label in table["label"]])


def _timed(train: partial[Any], settings: TrainingSettings) -> float:
    """Seconds of a pair, by the times at which steps ended."""
    ends: list[float] = []
    train(progress=lambda done, total: ends.append(time.perf_counter()))
    warm = min(_WARM, len(ends) - 1)
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm) / (settings.batch_queries * (1 + settings.negatives))
