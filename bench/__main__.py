"""Pairs per second of our scorer against `CrossEncoder.predict`, same weights, pairs and threads, alternating
in one run."""

import json
import statistics
import time
from pathlib import Path

from models.artifacts import ArtifactStore
from models.cross_encoder import CrossEncoderScorer
from models.encoder import passage_text
from models.settings import load_settings

_PAIRS, _ROUNDS, _BATCH = 256, 5, 32
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "results.json"


def main() -> None:
    """Measure on the models and passages of the current deployment, print and write the figures."""
    import torch
    from sentence_transformers import CrossEncoder

    settings = load_settings()
    store = ArtifactStore(settings.artifact_root, settings.home / "cache")
    table = store.require("corpus/passages").read_table("passages.parquet").head(_PAIRS)
    texts = [passage_text(title, text) for title, text in zip(table["title"], table["text"], strict=True)]
    pairs = [("how is the result computed from the arguments", text) for text in texts]
    results = {}
    for size in ("compact", "large"):
        folder = store.require(f"training/{size}_reranker").folder
        ours = CrossEncoderScorer.load(folder, settings.training.max_tokens)
        # The pair head is a module of this checkout.
        peer = CrossEncoder(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)
        peer.max_seq_length = settings.training.max_tokens
        peer_times, our_times = [], []
        for _ in range(_ROUNDS + 1):
            started = time.perf_counter()
            peer.predict(pairs, batch_size=_BATCH, show_progress_bar=False)
            middle = time.perf_counter()
            ours.logits(pairs, _BATCH)
            peer_times.append(middle - started)
            our_times.append(time.perf_counter() - middle)
        # The first round warms up.
        ratios = [peer / our for peer, our in zip(peer_times[1:], our_times[1:], strict=True)]
        results[size] = {
            "pairs_per_second": round(len(pairs) / statistics.median(our_times[1:]), 1),
            "cross_encoder_pairs_per_second": round(len(pairs) / statistics.median(peer_times[1:]), 1),
            "speedup_vs_cross_encoder": round(statistics.median(ratios), 3),
        }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({"threads": torch.get_num_threads(), "pairs": _PAIRS, "engine": results}, indent=1) + "\n"
    )
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
