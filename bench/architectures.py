"""What each architecture costs: `python -m bench.architectures`, or with names of some of them.

Every architecture at the size of the bundled weights (6 layers of 384; its own kind of tokenizer, trained on a few
texts, so few embeddings) starts from random weights, is trained for a few steps, gets the engine that `auto` takes for
it, and scores pairs. Each runs in a process of its own on one thread. Writes `architectures` of
docs/benchmarks/results.json: pairs per second of processor time, in training and by the engine, its agreement with
PyTorch in float32, and memory. Random weights rank by accident, so the agreement is a lower bound.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import psutil

from bench.results import merge
from models.cross_encoder.engines import load_engine
from models.cross_encoder.scorer import CrossEncoderScorer
from models.settings import EngineSettings, TrainingSettings
from models.training.engine_selection import ParitySample, build_engine
from models.training.fine_tuning import TrainingReport, train_large
from tests.tiny_architectures import SIZES, TEXTS, WRITERS, write_architecture
from tests.tiny_cross_encoder import TOPICS, examples

_LIKE_THE_BUNDLED = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 6, "intermediate_size": 1536}
_TOKENS, _LISTS = 64, 24


def main() -> None:
    """Measure, print and write."""
    for name in sys.argv[1:] or WRITERS:
        with tempfile.TemporaryDirectory() as place:
            figures = {**_apart("measure", name, place), **_apart("serve", name, place)}
        print(name, figures)
        merge({"architectures": {name: figures}})


def _apart(what: str, name: str, place: str) -> dict[str, Any]:
    """The figures that a process of its own prints last, on one thread."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.architectures", what, name, place],
        stdout=subprocess.PIPE, check=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Train, build the engine, and score in float32."""
    with patch.dict(SIZES, _LIKE_THE_BUNDLED):
        start, model = write_architecture(name, folder / "start", spread=0.02), folder / "model"
        settings = TrainingSettings(
            base_model=str(start), max_tokens=_TOKENS, large_pairs=3 * _LISTS, frozen_layers=0, batch_queries=8,
            compact_layers=[0, 1], learning_rate=5e-4, device="cpu",
        )  # fmt: skip
        warm = settings.model_copy(update={"large_pairs": 24})
        train_large(examples(_LISTS), warm, folder / "warm")  # loads libraries
        once = _seconds(lambda: train_large(examples(_LISTS), warm, folder / "warm"))
        report: list[TrainingReport] = []
        trained = _seconds(lambda: report.append(train_large(examples(_LISTS), settings, model))) - once
        taken = _sample()
        facts = build_engine(model, _TOKENS, "cpu", EngineSettings(), taken, folder / "engines" / "large")
        reference = CrossEncoderScorer.load(model, _TOKENS)
        float32 = _rate(reference, taken.pairs)
        return {
            "parameters": report[0].parameters,
            "trained_pairs_per_second": round((report[0].pairs - 24) / trained, 1),
            "engine": facts["kind"],
            "kendall_tau": round(facts.get("kendall_tau", 1.0), 4),
            "refused": facts.get("refused", ""),
            "float32_pairs_per_second": round(float32, 1),
        }


def serve(_: str, folder: Path) -> dict[str, Any]:
    """Score with the engine, in a process that has done nothing else."""
    engine: Any = load_engine(folder / "engines", folder / "model", "large", _TOKENS)
    pairs = _sample().pairs
    speed = _rate(engine, pairs)
    return {
        "tokens": float(np.mean([len(encoding) for encoding in engine.encode(pairs)])),
        "pairs_per_second": round(speed, 1),
        "process_mb": round(psutil.Process().memory_info().rss / 1e6),
    }


def _sample() -> ParitySample:
    rows, pairs, random = [], [], Random(0)
    for place, topic in enumerate(TOPICS):
        for number in range(10):
            rows.append((f"q{place}", f"p{number}", f"p{number}"))
            pairs.append((f"how to oil the {topic}?", " ".join(random.sample(TEXTS, 8))))
    candidates = pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id"])
    relevant = pd.DataFrame(
        {"query_id": [f"q{place}" for place in range(len(TOPICS))], "document_id": "p0", "grade": 1}
    )
    return ParitySample(pairs, candidates, relevant, pairs)


def _rate(scorer: Any, pairs: Sequence[tuple[str, str]]) -> float:
    """Pairs per second of processor time, after a warm-up."""
    encoded = scorer.encode(pairs)
    scorer.logits_of(encoded[:16])
    return len(pairs) / _seconds(lambda: scorer.logits_of(encoded))


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of this process and its threads: other processes do not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("measure", "serve"):
        print(json.dumps({"measure": measure, "serve": serve}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
