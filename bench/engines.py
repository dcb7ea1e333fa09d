"""Our engines against `CrossEncoder.predict` with the same weights, pairs and threads, alternating in one run.

`python -m bench.engines` measures the models of the current deployment (RERANKOPS_HOME) on the candidates of its test
queries, and writes `engine` of docs/benchmarks/results.json: pairs per second, milliseconds of requests of 10, 50 and
100 candidates, nDCG@10 by the models' logits alone, and the share of the machine's rate of matrix multiplication.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.results import merge
from models.artifacts import ArtifactStore
from models.cross_encoder import CrossEncoderScorer
from models.engines import SIZES, OnnxScorer, ParitySample, compare, export_model, load_engine, parity_sample
from models.offline_evaluation import split_of
from models.settings import Settings, load_settings

_PAIRS, _ROUNDS, _QUERIES = 128, 3, 50
_BATCHES = (8, 16, 32, 64)
_REQUESTS = (10, 50, 100)
_REPEATS = 5

Predict = Callable[[Sequence[tuple[str, str]]], Any]


def main() -> None:
    """Measure, print and write."""
    import torch

    settings = load_settings()
    store = ArtifactStore.of(settings)
    sample = sample_of(settings, store)
    threads = torch.get_num_threads()
    results: dict[str, Any] = {"threads": threads, "pairs": _PAIRS, "corpus": corpus_name(settings)}
    for size in SIZES:
        results[size] = _measure(size, settings, store, sample, threads)
    # The short names: of the compact model, which scores most pairs.
    for name in ("speedup_vs_cross_encoder", "ndcg_delta", "share_of_matmul_rate"):
        results[name] = results["compact"][name]
    print(merge({"engine": results}))


def corpus_name(settings: Settings) -> str:
    """Name of the corpus in the results: the folder of a BEIR corpus, else the kind of the source."""
    return Path(settings.corpus.path).name if settings.corpus.source == "beir" else settings.corpus.source


def sample_of(settings: Settings, store: ArtifactStore) -> ParitySample:
    """Candidates of the test queries of the current deployment."""
    test, judgments = split_of(store.require("corpus/evaluation_set"), "test")
    return parity_sample(
        store.require("index/candidates").read_table("candidates.parquet"),
        test,
        store.require("corpus/passages").read_table("passages.parquet", ["passage_id", "title", "text"]),
        judgments,
        _QUERIES,
    )


def _measure(size: str, settings: Settings, store: ArtifactStore, sample: ParitySample, threads: int) -> dict[str, Any]:
    from sentence_transformers import CrossEncoder

    folder = store.require(f"training/{size}_reranker").folder
    length = settings.training.max_tokens
    ours = load_engine(store.require("training/scoring_engines").folder, folder, size, length)
    torch_scorer = CrossEncoderScorer.load(folder, length)
    # The pair head is a module of this checkout.
    peer = CrossEncoder(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)
    peer.max_seq_length = length
    pairs = list(sample.pairs[:: max(len(sample.pairs) // _PAIRS, 1)][:_PAIRS])
    with tempfile.TemporaryDirectory() as scratch:
        export_model(folder, Path(scratch), "fp32")
        fp32 = OnnxScorer.load(Path(scratch), length)
        contestants: dict[str, Predict] = {
            **{f"cross_encoder_{size}": _predict(peer, size) for size in _BATCHES},
            "onnx_fp32": fp32.logits,
            "ours": ours.logits,
        }
        seconds = _alternate(contestants, pairs)
    rates = {name: len(pairs) / statistics.median(taken) for name, taken in seconds.items()}
    best = max((name for name in rates if name.startswith("cross_encoder")), key=lambda name: rates[name])
    ratios = [theirs / mine for theirs, mine in zip(seconds[best], seconds["ours"], strict=True)]
    parity = compare(torch_scorer.logits(sample.pairs), ours.logits(sample.pairs), sample)
    flops = float(np.mean([pair_flops(torch_scorer, len(encoding)) for encoding in ours.encode(pairs)]))
    return {
        "pairs_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "best_cross_encoder": best,
        "speedup_vs_cross_encoder": round(statistics.median(ratios), 3),
        "speedup_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "ndcg_delta": round(parity.ndcg_change, 5),
        "ndcg_queries": parity.queries,
        "kendall_tau": round(parity.kendall_tau, 4),
        "top_10_overlap": round(parity.top_10_overlap, 4),
        "largest_difference": round(parity.largest_difference, 4),
        "mflops_per_pair": round(flops / 1e6, 1),
        "share_of_matmul_rate": round(rates["ours"] * flops / int8_rate(threads), 3),
        "cross_encoder_share_of_fp32_rate": round(rates[best] * flops / fp32_rate(), 3),
        "request_ms": {
            str(count): {
                "ours": _latency(ours.logits, pairs[:count]),
                "peer": _latency(contestants[best], pairs[:count]),
            }
            for count in _REQUESTS
        },
    }


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
    p50, worst = np.percentile(samples, 50), max(samples)
    return {"p50": round(float(p50), 1), "max": round(worst, 1)}


def pair_flops(scorer: CrossEncoderScorer, tokens: int) -> float:
    """Floating-point operations of the matrix products of one pair (a multiplication and an addition are two)."""
    config = scorer.body.config
    hidden, inner = config.hidden_size, config.intermediate_size
    projections = 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 4 * tokens * tokens * hidden
    return float(config.num_hidden_layers * (projections + attention))


def fp32_rate() -> float:
    """Operations per second of float32 products of a batch's size, by PyTorch with its threads."""
    import torch

    left, right = torch.randn(4096, 384), torch.randn(384, 1536)
    return _rate(lambda: torch.mm(left, right), 2 * 4096 * 384 * 1536)


def int8_rate(threads: int) -> float:
    """Operations per second of int8 products of a pair's size in ONNX Runtime, one on each of `threads` threads."""
    from concurrent.futures import ThreadPoolExecutor

    import onnx
    import onnxruntime

    shapes = ((128, 384), (384, 1536))
    kinds = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    weights = np.random.default_rng(0).integers(-63, 64, shapes[1]).astype(np.int8)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["left", "right"], ["out"])],
        "product",
        [onnx.helper.make_tensor_value_info("left", kinds[0], shapes[0])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.INT32, (128, 1536))],
        [onnx.numpy_helper.from_array(weights, "right")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"left": np.full(shapes[0], 7, dtype=np.uint8)}
    with ThreadPoolExecutor(threads) as pool:
        return _rate(
            lambda: list(pool.map(lambda _: session.run(None, feed), range(16 * threads))),
            2 * 128 * 384 * 1536 * 16 * threads,
        )


def _rate(work: Callable[[], object], operations: int) -> float:
    best = 0.0
    for _ in range(20):
        started = time.perf_counter()
        work()
        best = max(best, operations / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    main()
