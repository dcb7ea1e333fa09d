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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.folders import DATA, FIGURES, ROOT
from bench.results import merge_into
from models.cascade.calibration import fit_calibration
from models.cascade.offline import rerank
from models.cascade.window_fitting import fit_early_exit
from models.contracts.tiers import MODEL_TIERS
from models.corpus.splits import sample_by_hash
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import evaluate_ranking
from models.evaluation.scored_candidates import pair_costs
from models.measures.metrics import MAIN_MEASURE, mean_values
from models.settings import Settings, load_settings
from models.store import asset_names as names
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force
from orchestration.separate_runs import evaluation_in, run_to_evaluation, store_in

RESULTS = FIGURES / "quality.json"
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
            run = ", ".join((preset, f"seed {seed}", *options.set))
            merge_into(RESULTS, {corpus: {run: figures}}, depth=2)
            shown = {name: figures["systems"][name]["nDCG@10"] for name in figures["systems"]}
            print(corpus, f"seed {seed}", json.dumps(shown), json.dumps(figures["gains"]["tiered"]), flush=True)
            print(f"  development queries, to choose by: {json.dumps(figures['development'])}", flush=True)


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
        "development": development(store, load_settings(settings)),
        "minutes": {name: round(store.require(name).manifest.seconds / 60, 2) for name in _STAGES},
    }


def development(store: ArtifactStore, settings: Settings) -> dict[str, float]:
    """nDCG@10 of each system on the development queries, by which settings are chosen: the test queries report once."""
    values = development_values(store, settings)
    return {
        str(name): round(mean_values(rows)[MAIN_MEASURE], 4)
        for name, rows in values.drop(columns="system").groupby(values["system"])
    }


def development_values(store: ArtifactStore, settings: Settings) -> pd.DataFrame:
    """All measures of each system on each development query: `models.evaluation.report.PER_QUERY_COLUMNS`.

    Scores and windows are fitted on one half of the queries and judged on the other, and the other way round.
    """
    settings = settings_in_force(store, settings)
    queries, judgments = split_of(store.require(names.EVALUATION_SET), "dev")
    artifact = store.require(names.SCORED_CANDIDATES)
    scored = artifact.read_table("scored.parquet")
    ids = sample_by_hash(queries, len(queries))["query_id"].tolist()
    halves = [
        (scored[scored["query_id"].isin(half)], judgments[judgments["query_id"].isin(half)])
        for half in (ids[::2], ids[1::2])
    ]
    values = []
    for (fitted_on, known), (judged, asked) in (halves, halves[::-1]):
        calibration = fit_calibration(fitted_on, known)
        fitted = fit_early_exit(fitted_on, known, calibration, settings.tiers, pair_costs(artifact))
        calibration = replace(calibration, early_exit=fitted.early_exit)
        for name, ranking in rerank(judged, calibration, settings.tiers).items():
            values.append(evaluate_ranking(name, ranking, asked))
    return pd.concat(values, ignore_index=True)


def figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an evaluation (`EvaluationReport.to_dict`); without a compact model it has no share."""
    gains, over = (
        {name: _gain(values) for name, values in report[entry].items()} for entry in ("gains", "gains_over_first_stage")
    )
    share = over["compact"]["difference"] / over["large"]["difference"] if "compact" in over else None
    return {
        "queries": report["queries"],
        "best_first_stage": report["best_first_stage"],
        "best_without_model": report["best_without_model"],
        "gains_over_first_stage": over,
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
