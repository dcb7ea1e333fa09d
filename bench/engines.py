"""Our engines against `CrossEncoder.predict` with the same weights, pairs and threads, alternating in one run.

`python -m bench.engines [compact | large]` measures the models of the current deployment (RERANKOPS_HOME) on the
candidates of its development and test queries, and writes `engine.<kind of CPU>` of docs/benchmarks/results.json and
a plot: pairs per second, milliseconds of requests of 10, 50 and 100 candidates, nDCG@10 by the models' logits alone,
the share of the machine's rate of matrix multiplication, and what takes the rest. `ours` is the engine that
`engine.kind = "auto"` takes. Last, it names what became slower than in the last figures of the same kind of CPU.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.machine import cpu_kind
from bench.results import RESULTS, figures_of, merge, slower
from models.contracts.tiers import LAST, released_tiers
from models.cross_encoder.bfloat16 import Bfloat16Scorer, multiplies_bfloat16
from models.cross_encoder.engines import Kind, OnnxScorer
from models.cross_encoder.flops import pair_flops
from models.cross_encoder.int8 import Int8Scorer
from models.cross_encoder.scorer import CrossEncoderScorer
from models.evaluation.evaluation_set import split_of
from models.settings import Settings, chosen, load_settings
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force
from models.training.engine_selection import ParitySample, compare, make_engine, parity_sample

_PAIRS, _ROUNDS, _PROFILED = 64, 3, 32
_QUERIES, _GATE_QUERIES = 200, 60
_BATCHES = (8, 16, 32, 64)
_REQUESTS = (10, 50, 100)
_REPEATS = 50
_HEADLINES = ("speedup_vs_cross_encoder", "ndcg_delta", "share_of_matmul_rate", "kind", "tokens_per_pair")
_ROWS = 1024
"""Rows of the products whose rate is the machine's: those of ten pairs."""

Predict = Callable[[Sequence[tuple[str, str]]], Any]


def main() -> None:
    """Measure, print and write."""
    import torch

    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    sample, some = (sample_of(settings, store, count) for count in (_QUERIES, _GATE_QUERIES))
    threads = torch.get_num_threads()
    machine = cpu_kind()
    before = figures_of("engine").get(machine, {})
    results: dict[str, Any] = {"threads": threads, "pairs": _PAIRS, "corpus": corpus_name(settings)}
    results["load_average"] = round(os.getloadavg()[0], 1)  # above 0 something else ran
    names = [tier.name for tier in released_tiers(settings.tiers)]
    for size in sys.argv[1:] or names:
        results[size] = _measure(size, settings, store, sample, some, threads)
        if size == LAST.name:  # the model of every release
            results |= {name: results[size][name] for name in _HEADLINES}
        merge({"engine": {machine: results}})
    print(json.dumps(results, indent=1))
    for line in slower(before, results):
        print(f"{machine}: slower than in the last figures: {line}", file=sys.stderr)
    _plot({size: results[size] for size in names if size in results}, RESULTS.parent / "images" / "engines.png")


def kinds() -> list[Kind]:
    """The kinds of engine that this CPU has."""
    native: list[Kind] = ["bf16"] if multiplies_bfloat16() else []
    return [*native, "int8", "fp32"]


def engine_of(
    kind: Kind, model: Path, folder: Path, max_tokens: int, calibration: Sequence[tuple[str, str]]
) -> Bfloat16Scorer | Int8Scorer | OnnxScorer:
    """An engine of a model; what it needs is written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return make_engine(kind, model, folder, max_tokens, calibration)


def corpus_name(settings: Settings) -> str:
    """Name of the corpus in the results: the folder of a BEIR corpus, else the kind of the source."""
    return Path(settings.corpus.path).name if settings.corpus.source == "beir" else settings.corpus.source


def sample_of(settings: Settings, store: ArtifactStore, count: int = 0) -> ParitySample:
    """Candidates of the development and test queries of the current deployment: of `count` queries, 0 is all."""
    evaluation_set = store.require("corpus/evaluation_set")
    splits = [split_of(evaluation_set, name) for name in ("dev", "test")]
    queries = pd.concat([queries for queries, _ in splits], ignore_index=True)
    candidates = store.require("index/candidates").read_table("candidates.parquet")
    passages = store.require("corpus/passages").read_table("passages.parquet", ["passage_id", "title", "text"])
    judgments = pd.concat([judgments for _, judgments in splits], ignore_index=True)
    sample = parity_sample(candidates, queries, passages, judgments, count or len(queries))
    dev, judged = splits[0]
    calibration = parity_sample(candidates, dev, passages, judged, settings.engine.parity_queries).calibration
    return replace(sample, calibration=calibration)  # as the engine step does: never of test queries


def _measure(
    size: str,
    settings: Settings,
    store: ArtifactStore,
    sample: ParitySample,
    some: ParitySample,
    threads: int,
) -> dict[str, Any]:
    """Figures of one model. `ours` is the first kind that ranks `some` as the model does, and ranks `sample` too."""
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig

    folder = store.require(f"training/{size}_reranker").folder
    length = chosen(settings.training.max_tokens)
    reference = CrossEncoderScorer.load(folder, length)
    # The pair head is a module of this checkout.
    peer = CrossEncoder(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)
    peer.max_seq_length = length
    pairs = list(sample.pairs[:: max(len(sample.pairs) // _PAIRS, 1)][:_PAIRS])
    with tempfile.TemporaryDirectory() as scratch:
        engines = {kind: engine_of(kind, folder, Path(scratch) / kind, length, some.calibration) for kind in kinds()}
        contestants: dict[str, Predict] = {
            **{f"cross_encoder_{batch}": _predict(peer, batch) for batch in _BATCHES},
            **{kind: engine.logits for kind, engine in engines.items()},
        }
        gflops = {kind: rate(kind, threads) / 1e9 for kind in kinds()}
        seconds = _alternate(contestants, pairs)
        best = min((name for name in seconds if name.startswith("cross")), key=lambda name: sum(seconds[name]))
        print(f"{size}: {len(some.pairs)} pairs in each engine", file=sys.stderr)
        expected = reference.logits(some.pairs)
        parities = {kind: compare(expected, engine.logits(some.pairs), some) for kind, engine in engines.items()}
        ours = next(kind for kind, parity in parities.items() if parity.accepted(settings.engine))
        print(f"{size}: {len(sample.pairs)} pairs in {ours}", file=sys.stderr)
        whole = compare(reference.logits(sample.pairs), engines[ours].logits(sample.pairs), sample)
        encoded = engines[ours].encode(pairs)
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        flops = float(np.mean([pair_flops(config, len(encoding)) for encoding in encoded]))
        rates = {name: len(pairs) / statistics.median(taken) for name, taken in seconds.items()}
        return {
            "kind": ours,
            "gflops": {kind: round(value, 1) for kind, value in gflops.items()},
            "tokens_per_pair": round(float(np.mean([len(encoding) for encoding in encoded])), 1),
            "mflops_per_pair": round(flops / 1e6, 1),
            "pairs_per_second": {name: round(value, 1) for name, value in rates.items()},
            "best_cross_encoder": best,
            "cross_encoder_share_of_fp32_rate": round(rates[best] * flops / 1e9 / gflops["fp32"], 3),
            "engines": {
                kind: {
                    **_ratios(seconds[best], seconds[kind]),
                    "share_of_matmul_rate": round(rates[kind] * flops / 1e9 / gflops[kind], 3),
                    "queries": parity.queries,
                    "ndcg_delta": round(parity.ndcg_change, 5),
                    "kendall_tau": round(parity.kendall_tau, 4),
                    "top_10_overlap": round(parity.top_10_overlap, 4),
                    "largest_difference": round(parity.largest_difference, 4),
                }
                for kind, parity in parities.items()
            },
            **_ratios(seconds[best], seconds[ours]),
            "ndcg_delta": round(whole.ndcg_change, 5),
            "ndcg_queries": whole.queries,
            "kendall_tau": round(whole.kendall_tau, 4),
            "top_10_overlap": round(whole.top_10_overlap, 4),
            "share_of_matmul_rate": round(rates[ours] * flops / 1e9 / gflops[ours], 3),
            "time_shares": _time_shares(folder, length, pairs) if ours == "bf16" else {},
            "request_ms": {
                str(count): {
                    "ours": _latency(engines[ours].logits, pairs[:count]),
                    "peer": _latency(contestants[best], pairs[:count]),
                }
                for count in _REQUESTS
            },
        }


def _ratios(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return {
        "speedup_vs_cross_encoder": round(statistics.median(ratios), 3),
        "speedup_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


_OPERATORS = {
    "mkldnn::_linear_pointwise": "matrix products, with GELU",
    "aten::addmm": "matrix products, with GELU",
    "aten::gelu": "matrix products, with GELU",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::native_layer_norm": "layer norms",
    "aten::add_": "residual sums",
}


def _time_shares(model: Path, max_tokens: int, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Shares of the time that the engine in bfloat16 takes for pairs on one thread, by operator (self time).

    `all others` are the dispatch of operators, embeddings, the head and copies; the profiler slows just these.
    """
    from concurrent.futures import ThreadPoolExecutor

    from torch.profiler import ProfilerActivity, profile

    engine = Bfloat16Scorer.load(model, max_tokens, 1)
    encoded = engine.encode(pairs[:_PROFILED])
    engine.logits_of(encoded)
    # A profiler sees its own thread alone, and products of more threads are others.
    with ThreadPoolExecutor(1, initializer=_one_thread) as thread:
        profiled = thread.submit(lambda: _profiled(engine, encoded, profile, ProfilerActivity.CPU)).result()
    taken = dict.fromkeys([*_OPERATORS.values(), "all others"], 0.0)
    for operator in profiled.key_averages():
        taken[_OPERATORS.get(operator.key, "all others")] += operator.self_cpu_time_total
    return {name: round(microseconds / sum(taken.values()), 3) for name, microseconds in taken.items()}


def _profiled(engine: Bfloat16Scorer, encoded: Sequence[Any], profile: Any, activity: Any) -> Any:
    with profile(activities=[activity]) as profiled:
        for group in engine.groups_of(encoded):
            engine.score_group([encoded[place] for place in group])
    return profiled


def _predict(peer: Any, batch_size: int) -> Predict:
    return lambda pairs: peer.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)


def _alternate(contestants: dict[str, Predict], pairs: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; the first round warms up and is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(_ROUNDS + 1):
        for name, predict in contestants.items():
            print(f"round {turn} of {_ROUNDS}: {name}", file=sys.stderr)
            started = time.perf_counter()
            predict(pairs)
            seconds[name].append(time.perf_counter() - started)
    return {name: taken[1:] for name, taken in seconds.items()}


def _latency(predict: Predict, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    samples = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        predict(pairs)
        samples.append(1000 * (time.perf_counter() - started))
    return {f"p{share}": round(float(np.percentile(samples, share)), 1) for share in (50, 99)}


def rate(kind: Kind, threads: int) -> float:
    """Operations per second of a layer's largest product in this precision, one on each thread at a time.

    bfloat16 is oneDNN's, of weights laid out before, float32 PyTorch's and int8 ONNX Runtime's: each the library of the
    engine, or of its peers.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
        product = _int8_product() if kind == "int8" else _float_product(kind)
        count = 8 * threads
        return _rate(lambda: list(pool.map(lambda _: product(), range(count))), 2 * _ROWS * 384 * 1536 * count)


def _one_thread() -> None:
    import torch

    torch.get_num_threads()
    torch.set_num_threads(1)


def _float_product(kind: Kind) -> Callable[[], object]:
    import torch

    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    left, weights = torch.randn(_ROWS, 384, dtype=dtype), torch.randn(1536, 384, dtype=dtype)
    if kind == "bf16":
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weights, _ROWS)
        return lambda: torch.ops.mkldnn._linear_pointwise(left, laid_out, None, "none", [], "")
    return lambda: torch.nn.functional.linear(left, weights)


def _int8_product() -> Callable[[], object]:
    import onnx
    import onnxruntime

    shapes = ((_ROWS, 384), (384, 1536))
    types = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    weights = np.random.default_rng(0).integers(-63, 64, shapes[1]).astype(np.int8)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["left", "right"], ["out"])],
        "product",
        [onnx.helper.make_tensor_value_info("left", types[0], shapes[0])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.INT32, (_ROWS, 1536))],
        [onnx.numpy_helper.from_array(weights, "right")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"left": np.full(shapes[0], 7, dtype=np.uint8)}
    return lambda: session.run(None, feed)


def _rate(work: Callable[[], object], operations: int) -> float:
    best = 0.0
    for _ in range(20):
        started = time.perf_counter()
        work()
        best = max(best, operations / (time.perf_counter() - started))
    return best


def _plot(results: dict[str, Any], path: Path) -> None:
    """Pairs per second of every contestant, by model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(9, 3.6), dpi=120, layout="constrained", squeeze=False)
    for axis, size in zip(axes[0], results, strict=True):
        rates = results[size]["pairs_per_second"]
        colors = ["tab:blue" if name == results[size]["kind"] else "tab:gray" for name in rates]
        axis.barh(list(rates), list(rates.values()), color=colors)
        axis.invert_yaxis()
        axis.set_title(f"{size}, {results[size]['tokens_per_pair']:.0f} tokens a pair")
        axis.set_xlabel("pairs per second")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
