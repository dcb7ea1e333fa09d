"""CPU time of engines beside CrossEncoder's on one thread, on this CPU and limited to the instructions of lesser ones.

`python -m bench.cpu_time` writes `engine_cpu_time.<kind of CPU>` of docs/benchmarks/results.json. CPU time depends less
than the clock's on what else runs. A limited CPU shows which engine such CPUs need, not how fast theirs are.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.engines import engine_of, kinds, sample_of
from bench.machine import cpu_kind
from bench.results import merge
from models.cross_encoder.engines import Kind
from models.settings import chosen, load_settings
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force

_LIMITS: tuple[dict[str, str], ...] = (
    {},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
)
_PAIRS, _ROUNDS, _BATCHES = 32, 3, (16, 32)


def main() -> None:
    """Measure each limit in a process of its own."""
    if sys.argv[1:] == ["here"]:
        print(json.dumps(measured()))
        return
    for limits in _LIMITS:
        environment = {**os.environ, **limits, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bench.cpu_time", "here"]
        answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
        figures = json.loads(answer.splitlines()[-1])
        merge({"engine_cpu_time": figures})
        print(json.dumps(figures))


def measured() -> dict[str, Any]:
    """CPU milliseconds of a pair by contestant, and how many times less than the best CrossEncoder's they are."""
    from sentence_transformers import CrossEncoder

    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    folder, length = store.require("training/large_reranker").folder, chosen(settings.training.max_tokens)
    sample = sample_of(settings, store, 60)
    pairs = list(sample.pairs[:: len(sample.pairs) // _PAIRS][:_PAIRS])
    peer = CrossEncoder(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)
    peer.max_seq_length = length
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        engines = {kind: engine_of(kind, folder, Path(scratch) / kind, length, sample.calibration) for kind in _kinds()}
        contestants = {
            **{
                f"cross_encoder_{size}": lambda size=size: peer.predict(pairs, batch_size=size, show_progress_bar=False)
                for size in _BATCHES
            },
            **{kind: lambda engine=engine: engine.logits(pairs) for kind, engine in engines.items()},
        }
        for _ in range(_ROUNDS + 1):  # the first one warms up
            for name, score in contestants.items():
                started = time.process_time()
                score()
                taken[name].append(time.process_time() - started)
    each = {name: 1000 * statistics.median(seconds[1:]) / len(pairs) for name, seconds in taken.items()}
    best = min(each[name] for name in each if name.startswith("cross"))
    ratios = {kind: round(best / each[kind], 2) for kind in engines}
    limited = cpu_kind().count("=") > 0
    return {
        cpu_kind(): {
            "emulated": limited,
            "threads": 1,
            "ms_per_pair": {name: round(value, 2) for name, value in each.items()},
            "speedup_vs_cross_encoder": ratios,
        }
    }


def _kinds() -> list[Kind]:
    # ONNX Runtime follows no limit.
    return [kind for kind in kinds() if kind == "bf16" or not os.environ.get("ONEDNN_MAX_CPU_ISA")]


if __name__ == "__main__":
    main()
