"""FlashRank's and infinity's engines with our exported weights, against ours: the same requests, alternating.

`python -m bench.peers` gives the current deployment's last model (RERANKOPS_HOME) as ONNX graphs, int8 and fp32, to
each peer in an environment of its own (`<home>/peers/<name>`, installed once), and writes `engine.<kind of CPU>.peers`
of docs/benchmarks/results.json, with `speedup_vs_best_peer` beside it. Every engine is a process that gets the same
requests. Give ours as many threads as the machine has cores (OMP_NUM_THREADS): the peers' pools take all of them,
whatever taskset says.

The torch engine of infinity is left out: it loads sequence classifiers, and our models end in a pair head, so that it
would score with a head of chance.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engines import kinds, sample_of
from bench.environments import environment
from bench.machine import cpu_kind
from bench.results import merge
from models.contracts.tiers import LAST
from models.cross_encoder.onnx_session import MODEL
from models.settings import chosen, load_settings
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force
from models.training.engine_selection import export_model

_REQUESTS, _ROUNDS = 8, 3

_LOOP = """
import json, sys, time
requests = json.loads(sys.stdin.readline())
for line in sys.stdin:
    started = time.perf_counter()
    best = [rank(query, texts) for query, texts in requests]
    taken = time.perf_counter() - started
    # Not ru_maxrss: that of the process which started this one counts in it.
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps([taken, best, int(peak) / 1024]), flush=True)
"""
"""What every process does with `rank`, which gives the place of the best text: answers a line with seconds, best places
and its peak memory, MiB."""

_OURS = """
import sys
from pathlib import Path
from models.cross_encoder.bfloat16 import Bfloat16Scorer
from models.cross_encoder.engines import OnnxScorer
kind, model, graph, length = sys.argv[1:]
if kind == "bf16":
    engine = Bfloat16Scorer.load(Path(model), int(length))
else:
    engine = OnnxScorer.load(Path(graph), int(length))
def rank(query, texts):
    return int(engine.logits([(query, text) for text in texts]).argmax())
"""

_FLASHRANK = """
import sys
from flashrank import Ranker, RerankRequest
ranker = Ranker(model_name=sys.argv[1], cache_dir=sys.argv[2], max_length=int(sys.argv[3]), log_level="ERROR")
def rank(query, texts):
    passages = [{"id": place, "text": text} for place, text in enumerate(texts)]
    return int(ranker.rerank(RerankRequest(query=query, passages=passages))[0]["id"])
"""

_INFINITY = """
import asyncio, os, sys
from infinity_emb import AsyncEmbeddingEngine, EngineArgs
os.chdir(sys.argv[1])  # infinity names the graph by its path, of which optimum 2 takes the name alone
loop = asyncio.new_event_loop()
engine = AsyncEmbeddingEngine.from_args(EngineArgs(
    model_name_or_path=".", engine="optimum", device="cpu", model_warmup=False, onnx_disable_optimize=True))
loop.run_until_complete(engine.astart())
def rank(query, texts):
    ranked, _ = loop.run_until_complete(engine.rerank(query=query, docs=texts))
    return int(max(ranked, key=lambda one: one.relevance_score).index)
"""

_NAME, _FILE = "ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"
"""A model name that FlashRank knows, and the file that it then opens."""


@dataclass(frozen=True)
class Contestant:
    """A process to be measured."""

    python: Path
    script: str
    arguments: tuple[str, ...]


def main() -> None:
    """Measure, print and write."""
    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    model, length = store.require(f"training/{LAST.name}_reranker").folder, chosen(settings.training.max_tokens)
    grouped: dict[str, list[str]] = {}
    for query, text in sample_of(settings, store, _REQUESTS).pairs:
        grouped.setdefault(query, []).append(text)
    requests = list(grouped.items())
    count = sum(len(texts) for _, texts in requests)
    peers = settings.home / "peers"
    flashrank = environment(peers / "flashrank", "flashrank==0.2.10")
    infinity = environment(peers / "infinity", "infinity-emb[torch,optimum,server]==0.0.78", "onnx", torch=True)
    with tempfile.TemporaryDirectory() as scratch:
        contestants: dict[str, Contestant] = {}
        for kind in kinds():
            graph = Path(scratch) / kind
            if kind != "bf16":
                graph.mkdir()
                export_model(model, graph, kind)
                for_flashrank, for_infinity = Path(scratch) / f"flashrank-{kind}", Path(scratch) / f"infinity-{kind}"
                _lay_out_for_flashrank(graph, for_flashrank / _NAME, length)
                _lay_out_for_infinity(model, graph, for_infinity, length)
                arguments = (_NAME, str(for_flashrank), str(length))
                contestants[f"flashrank_{kind}"] = Contestant(flashrank, _FLASHRANK, arguments)
                contestants[f"infinity_{kind}"] = Contestant(infinity, _INFINITY, (str(for_infinity),))
            arguments = (kind, str(model), str(graph), str(length))
            contestants[f"ours_{kind}"] = Contestant(Path(sys.executable), _OURS, arguments)
        rounds = _run(contestants, requests)
    ours_best = f"ours_{kinds()[0]}"
    figures = {
        name: {
            "pairs_per_second": round(count / statistics.median(seconds for seconds, *_ in taken), 1),
            "speedup_of_ours": round(
                statistics.median(theirs[0] / ours[0] for theirs, ours in zip(taken, rounds[ours_best], strict=True)), 3
            ),
            "same_best_passage": round(_agreement(taken[0][1], rounds["ours_fp32"][0][1]), 3),
            "peak_mib": round(max(memory for *_, memory in taken)),
        }
        for name, taken in rounds.items()
    }
    peers_figures = {"requests": len(requests), "pairs": count, "ours": ours_best, "engines": figures}
    best = min(ratio["speedup_of_ours"] for name, ratio in figures.items() if not name.startswith("ours"))
    merge({"engine": {cpu_kind(): {"peers": peers_figures, "speedup_vs_best_peer": best}}})
    print(json.dumps(peers_figures, indent=1))


def _run(
    contestants: dict[str, Contestant], requests: list[tuple[str, list[str]]]
) -> dict[str, list[tuple[float, list[int], float]]]:
    """Seconds, best places and memory of each process in each round; the first round warms up and is left out."""
    rounds: dict[str, list[Any]] = {name: [] for name in contestants}
    with ExitStack() as stack:
        running: dict[str, subprocess.Popen[str]] = {}
        for name, contestant in contestants.items():
            command = [str(contestant.python), "-c", contestant.script + _LOOP, *contestant.arguments]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            running[name] = stack.enter_context(process)
            _say(process, json.dumps(requests))
        for turn in range(_ROUNDS + 1):
            for name, process in running.items():
                print(f"round {turn} of {_ROUNDS}: {name}", file=sys.stderr)
                _say(process, "go")
                rounds[name].append(_hear(name, process))
        for process in running.values():
            process.kill()
    return {name: taken[1:] for name, taken in rounds.items()}


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(name: str, process: subprocess.Popen[str]) -> Any:
    """The next answer; libraries may print lines of their own."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[") and line.rstrip().endswith("]"):
            return json.loads(line)
    raise RuntimeError(f"{name} ended without an answer")


def _agreement(left: list[int], other: list[int]) -> float:
    return sum(a == b for a, b in zip(left, other, strict=True)) / len(left)


def _lay_out_for_flashrank(graph: Path, folder: Path, length: int) -> None:
    """Our graph and tokenizer as FlashRank wants them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(graph), local_files_only=True)
    folder.mkdir(parents=True)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    pad = tokenizer.pad_token
    for name, content in {
        "config.json": {"pad_token_id": tokenizer.pad_token_id},
        "tokenizer_config.json": {"model_max_length": length, "pad_token": pad},
        "special_tokens_map.json": {"pad_token": pad},
    }.items():
        (folder / name).write_text(json.dumps(content))
    _save_with_column(graph / MODEL, folder / _FILE)


def _lay_out_for_infinity(model: Path, graph: Path, folder: Path, length: int) -> None:
    """Our graph and tokenizer as a sequence classifier of optimum; infinity cuts pairs to the number of positions."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(str(model), local_files_only=True)
    config.architectures = ["BertForSequenceClassification"]
    config.num_labels, config.max_position_embeddings = 1, length
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(graph), local_files_only=True).save_pretrained(folder)
    _save_with_column(graph / MODEL, folder / MODEL)


def _save_with_column(graph: Path, path: Path) -> None:
    """Save a graph whose logits [pairs] have become [pairs, 1]."""
    import onnx

    model = onnx.load(str(graph))
    out = model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = ["row" if name == out.name else name for name in node.output]
    model.graph.initializer.append(onnx.helper.make_tensor("last_axis", onnx.TensorProto.INT64, [1], [1]))
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", ["row", "last_axis"], ["logits"]))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["pairs", 1]))
    onnx.save(model, str(path))


if __name__ == "__main__":
    main()
