"""How well the reranker ranks on each corpus: `python -m bench.quality [CORPUS...] [--seeds 0,1,2] [--set KEY=VALUE]`.

Runs the lifecycle up to the evaluation on each corpus with the settings below, in a home of its own below
RERANKOPS_HOME (default var/quality), and writes systems, intervals, p values and minutes to
docs/benchmarks/quality.json under corpus, and preset, seed and the settings given here. A corpus is `python-docs` or
the name of a folder of RERANKOPS_DATA. A second call makes nothing again, so it only rewrites the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.results import merge_into
from models.contracts.tiers import MODEL_TIERS
from orchestration.separate_runs import evaluation_in, run_to_evaluation, store_in

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RERANKOPS_DATA") or ROOT.parent / "shared" / "data")
RESULTS = ROOT / "docs" / "benchmarks" / "quality.json"
SETTINGS: dict[str, tuple[str, ...]] = {
    "python-docs": (),
    "squad-v1.1-dev": ("training.max_tokens=192", "training.max_queries=6000", "training.large_pairs=32000"),
    "scifact": ("training.max_tokens=192", "evaluation.max_test_queries=300"),
    "medquad-liveqa-open": ("training.max_tokens=128",),
}
"""What differs from the preset, by corpus."""

_STAGES = (
    "index/passage_embeddings", *(tier.asset for tier in reversed(MODEL_TIERS)), "evaluation/scored_candidates",
)  # fmt: skip


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description="The ranking on each corpus.")
    parser.add_argument("corpus", nargs="*", default=list(SETTINGS), help=f"any of {', '.join(SETTINGS)}")
    parser.add_argument("--seeds", default="0", help="seeds of mining and training, separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, over those here")
    options = parser.parse_args()
    preset = os.environ.get("RERANKOPS_PRESET", "demo")
    homes = Path(os.environ.get("RERANKOPS_HOME") or ROOT / "var" / "quality").resolve()
    for corpus in options.corpus:
        for seed in options.seeds.split(","):
            figures = measure(corpus, int(seed), options.set, homes / corpus)
            merge_into(RESULTS, {corpus: {", ".join((preset, f"seed {seed}", *options.set)): figures}})
            shown = {name: figures["systems"][name]["nDCG@10"] for name in figures["systems"]}
            print(corpus, f"seed {seed}", json.dumps(shown), json.dumps(figures["gains"]["tiered"]), flush=True)


def measure(corpus: str, seed: int, overrides: list[str], home: Path) -> dict[str, Any]:
    """The evaluation of one run of the lifecycle."""
    settings = [*SETTINGS[corpus], *overrides, f"training.seed={seed}"]
    if corpus != "python-docs":
        settings += ["corpus.source=beir", f"corpus.path={DATA / corpus}"]
    if run_to_evaluation(home, settings):
        sys.exit(f"{corpus}: the run in {home} failed")
    store = store_in(home)
    report = json.loads(evaluation_in(home).path("report/evaluation.json").read_bytes())
    return {
        "settings": settings,
        **figures(report),
        "minutes": {name: round(store.require(name).manifest.seconds / 60, 2) for name in _STAGES},
    }


def figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an evaluation (`EvaluationReport.to_dict`); without a compact model it has no share."""
    gains = {name: _gain(values) for name, values in report["gains"].items()}
    share = gains["compact"]["difference"] / gains["large"]["difference"] if "compact" in gains else None
    return {
        "queries": report["queries"],
        "best_first_stage": report["best_first_stage"],
        "systems": {name: _system(values) for name, values in report["systems"].items()},
        "gains": gains,
        "compact_share_of_large_gain": None if share is None else round(share, 3),
        "detectable": round(report["power"]["detectable"], 4),
    }


def _system(values: dict[str, Any]) -> dict[str, Any]:
    measures = {name: round(values[name], 4) for name in ("nDCG@10", "MRR@10", "R@10")}
    return {**measures, "interval": [round(bound, 4) for bound in values["interval"]]}


def _gain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(values[name], 4) for name in ("difference", "low", "high", "p_value", "p_corrected")}


if __name__ == "__main__":
    main()
