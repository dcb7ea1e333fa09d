"""What training costs, and with which attention: `python -m bench.training`.

Trains both models on a few pairs of the current deployment's examples (RERANKOPS_HOME), with attention by matrix
products (`models.training.cpu_attention`) and with PyTorch's fused kernel, alternating in one run. Writes `training` of
docs/benchmarks/results.json: pairs per second of each round, and the share of the machine's rate of matrix
multiplication that the models' products reach.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoConfig

from bench.engines import corpus_name, rate
from bench.results import merge
from models.cross_encoder.flops import pair_flops
from models.cross_encoder.pairwise import Progress
from models.cross_encoder.scorer import CrossEncoderScorer
from models.settings import chosen, load_settings
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force
from models.training.fine_tuning import mixed_precision, train_large, train_student, untrained_layers

_PAIRS, _ROUNDS, _WARM = 512, 3, 4
"""Pairs of a training, trainings of each kind, and steps of each that are not timed."""

_ATTENTION: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "products": nullcontext,
    "fused": lambda: patch("models.training.cpu_attention.use_products"),
}


def main() -> None:
    """Measure, print and write."""
    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    examples = store.require("training/training_examples").read_table("training_examples.parquet").head(8 * _PAIRS)
    large = store.require("training/large_reranker").folder
    few = settings.training.model_copy(update={"large_pairs": _PAIRS, "compact_pairs": _PAIRS, "early_stopping": 0})
    precision, threads = mixed_precision(few), torch.get_num_threads()
    limit = rate("bf16" if precision == "bf16" else "fp32", threads)
    encoded = CrossEncoderScorer.load(large, chosen(few.max_tokens)).encode(
        list(zip(examples["query"].head(_PAIRS), examples["passage"].head(_PAIRS), strict=True))
    )
    config = AutoConfig.from_pretrained(str(large), local_files_only=True)
    forward = statistics.fmean(pair_flops(config, len(encoding)) for encoding in encoded)
    layers = config.num_hidden_layers
    untrained = untrained_layers(few.students["compact"], few.frozen_layers)  # read with the teacher's
    trained = (len(few.compact_layers) - untrained) / layers
    models: dict[str, tuple[float, Callable[[Path, Progress], object]]] = {
        "large": (
            forward * (1 + 2 * (layers - few.frozen_layers) / layers),
            lambda folder, progress: train_large(examples, few, folder, progress),
        ),
        "compact": (
            forward * (1 + 3 * trained),
            lambda folder, progress: train_student("compact", examples, large, few, folder, progress),
        ),
    }
    figures: dict[str, Any] = {
        "corpus": corpus_name(settings),
        "precision": precision,
        "threads": threads,
        "tokens_per_pair": round(statistics.fmean(map(len, encoded)), 1),
        "gflops_of_matrix_products": round(limit / 1e9),
    }
    for size, (flops, train) in models.items():
        rates: dict[str, list[float]] = {name: [] for name in _ATTENTION}
        for turn in range(_ROUNDS):
            for name, attention in _ATTENTION.items():
                print(f"{size}: round {turn + 1} of {_ROUNDS}, {name}", file=sys.stderr)
                with attention():
                    rates[name].append(_pairs_per_second(train, few.batch_queries * (few.negatives + 1)))
        pairs = {name: statistics.median(values) for name, values in rates.items()}
        figures[size] = {
            "gflop_per_pair": round(flops / 1e9, 2),
            "pairs_per_second": {name: [round(value, 1) for value in values] for name, values in rates.items()},
            "speedup": round(pairs["products"] / pairs["fused"], 2),
            "share_of_matrix_rate": round(pairs["products"] * flops / limit, 3),
        }
    print(merge({"training": figures}))


def _pairs_per_second(train: Callable[[Path, Progress], object], step: int) -> float:
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), lambda done, total: times.append(time.perf_counter()))
    return step * (len(times) - 1 - _WARM) / (times[-1] - times[_WARM])


if __name__ == "__main__":
    main()
