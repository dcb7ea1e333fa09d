"""FlashRank's engine with our exported weights, against ours: the same requests, alternating in one run.

`python -m bench.peers` installs FlashRank in an environment of its own (`<home>/peers`), gives it the graphs of the
current deployment's compact model (int8 as released, and fp32), and writes `engine.peers` of
docs/benchmarks/results.json. FlashRank pads each request to its longest pair and uses all cores for one product.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from bench.engines import sample_of
from bench.results import merge
from models.artifacts import ArtifactStore
from models.engines import MODEL, OnnxScorer, export_model, load_engine
from models.settings import load_settings

_REQUESTS, _ROUNDS = 16, 5
_NAME, _FILE = "ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"
"""A model name that FlashRank knows, and the file that it then opens."""

_PEER = """
import json, sys, time
from flashrank import Ranker, RerankRequest
ranker = Ranker(model_name=sys.argv[1], cache_dir=sys.argv[2], max_length=int(sys.argv[3]), log_level="ERROR")
requests = json.loads(sys.stdin.readline())
for line in sys.stdin:
    started = time.perf_counter()
    found = [ranker.rerank(RerankRequest(query=q, passages=[{"id": i, "text": t} for i, t in enumerate(texts)]))
             for q, texts in requests]
    taken = time.perf_counter() - started
    print(json.dumps([taken, [int(one[0]["id"]) for one in found]]), flush=True)
"""


def main() -> None:
    """Measure, print and write."""
    settings = load_settings()
    store = ArtifactStore.of(settings)
    folder, length = store.require("training/compact_reranker").folder, settings.training.max_tokens
    sample = sample_of(settings, store)
    grouped: dict[str, list[str]] = {}
    for query, text in sample.pairs:
        grouped.setdefault(query, []).append(text)
    requests = list(grouped.items())[:_REQUESTS]
    count = sum(len(texts) for _, texts in requests)
    python = _environment(settings.home / "peers")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = Path(scratch) / "fp32"
        fp32.mkdir()
        export_model(folder, fp32, "fp32")
        engines = store.require("training/scoring_engines").folder
        ours = {
            "int8": (engines / "compact", load_engine(engines, folder, "compact", length)),
            "fp32": (fp32, OnnxScorer.load(fp32, length)),
        }
        for kind, (place, engine) in ours.items():
            cache = Path(scratch) / f"flashrank-{kind}"
            _lay_out(place, cache / _NAME, length)
            command = [str(python), "-c", _PEER, _NAME, str(cache), str(length)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
                assert peer.stdin is not None
                assert peer.stdout is not None
                peer.stdin.write(json.dumps(requests) + "\n")
                theirs, mine, same = [], [], 0
                for turn in range(_ROUNDS + 1):
                    print(f"{kind}: round {turn} of {_ROUNDS}", file=sys.stderr)
                    peer.stdin.write("go\n")
                    peer.stdin.flush()
                    seconds, best = json.loads(peer.stdout.readline())
                    theirs.append(seconds)
                    started = time.perf_counter()
                    scores = [engine.logits([(query, text) for text in texts]) for query, texts in requests]
                    mine.append(time.perf_counter() - started)
                    same = sum(int(one.argmax()) == place for one, place in zip(scores, best, strict=True))
                peer.stdin.close()
            found[kind] = {
                "flashrank_pairs_per_second": round(count / statistics.median(theirs[1:]), 1),
                "ours_pairs_per_second": round(count / statistics.median(mine[1:]), 1),
                "speedup": round(statistics.median(a / b for a, b in zip(theirs[1:], mine[1:], strict=True)), 3),
                "same_best_passage": round(same / len(requests), 3),
            }
    print(merge({"engine": {"peers": {"flashrank": {"requests": len(requests), "pairs": count, **found}}}}))


def _environment(folder: Path) -> Path:
    """A Python with FlashRank, kept for the next time."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "flashrank==0.2.10"], check=True)
    return python


def _lay_out(engine: Path, folder: Path, length: int) -> None:
    """Our graph and tokenizer as FlashRank wants them: logits [pairs, 1], and the files of a Hugging Face model."""
    import onnx
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(engine), local_files_only=True)
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
    model = onnx.load(str(engine / MODEL))
    out = model.graph.output[0]
    model.graph.initializer.append(onnx.helper.make_tensor("last_axis", onnx.TensorProto.INT64, [1], [1]))
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", [out.name, "last_axis"], ["column"]))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("column", onnx.TensorProto.FLOAT, ["pairs", 1]))
    onnx.save(model, str(folder / _FILE))


if __name__ == "__main__":
    main()
