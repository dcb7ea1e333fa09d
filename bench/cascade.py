"""The cascade against the large model on all 100 candidates: nDCG@10, time and operations of a query, cache off.

`python -m bench.cascade` measures the release candidate of the current deployment (RERANKOPS_HOME) on its test queries,
and writes `cascade` of docs/benchmarks/results.json under the name of the corpus, with a plot of quality by budget: the
cascade with windows fitted for each budget, and one model alone on the best of the first stage. Calibration and windows
are fitted on 100 candidates of each development query, as a deployment with `evaluation.candidates` = 100 fits them: a
first-stage score is worth more where most candidates are far down.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoConfig

from bench.early_exits import fit_budget
from bench.engines import corpus_name
from bench.results import RESULTS, merge
from models.cascade.calibration import Calibration, candidate_inputs, fit_calibration
from models.cascade.cascade import best_first, tie_ranks
from models.cascade.offline import asked_of, tiered_ranking
from models.cascade.window_fitting import fit_early_exit
from models.contracts.tiers import MODEL_TIERS
from models.corpus.splits import sample_by_hash
from models.cross_encoder.candidate_scores import candidate_pairs
from models.cross_encoder.engines import load_engines, model_folders
from models.cross_encoder.flops import pair_flops
from models.evaluation.evaluation_set import split_of
from models.evaluation.scored_candidates import pair_costs
from models.measures.metrics import collapse_to_documents, evaluate_run
from models.serving.loaded_bundle import LoadedBundle, load_bundle
from models.settings import TiersSettings, chosen, load_settings
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force

_QUERIES, _DEPTH = 250, 100
_BUDGETS = (1.0, 2.0, 3.0, 4.5, 6.5, 9.5, 14.0, 19.0)
"""Mean cost of a query, in pairs of the large model (`tiers.early_exit_budget`)."""

_TENTH = 9.5
"""The budget of the figures that are compared with the large model on all candidates."""

_SINGLE = (2, 3, 5, 7, 10, 15, 20, 50, 100)
"""Best candidates by the first stage that one model alone scores."""


@dataclass
class Costs:
    """Seconds and operations of every pair in each model."""

    seconds: dict[str, np.ndarray]
    flops: dict[str, np.ndarray]

    def of(self, rows: dict[str, np.ndarray], queries: int) -> tuple[float, float]:
        """Milliseconds and GFLOP of a query, for the pairs `rows` that each model scored."""
        seconds = sum(float(self.seconds[size][rows[size]].sum()) for size in rows)
        flops = sum(float(self.flops[size][rows[size]].sum()) for size in rows)
        return 1000 * seconds / queries, flops / queries / 1e9


def main(arguments: Sequence[str] = ()) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="The cascade against the large model.")
    parser.add_argument("--queries", type=int, default=_QUERIES, help="queries of each split, at most")
    most = parser.parse_args(arguments).queries
    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    candidate = store.require("release/release_candidate")
    if len(model_folders(candidate.folder)) < len(MODEL_TIERS):
        sys.exit("the release has one model: a cascade of models needs tiers.models to name both")
    bundle = load_bundle(candidate)
    passages = store.require("corpus/passages").read_table("passages.parquet", ["passage_id", "title", "text"])
    scored: dict[str, tuple[pd.DataFrame, Costs, pd.DataFrame]] = {}
    for split in ("dev", "test"):
        queries, judgments = split_of(store.require("corpus/evaluation_set"), split)
        queries = sample_by_hash(queries, most)
        table = _candidates(bundle, queries)
        pairs = candidate_pairs(table, queries, passages)
        kept = judgments[judgments["query_id"].isin(queries["query_id"])]
        scored[split] = (*_score(table, pairs, candidate.folder, chosen(settings.training.max_tokens)), kept)
    bundle.close()
    dev, _, of_dev = scored["dev"]
    table, costs, judgments = scored["test"]
    queries = table["query_id"].unique()
    deep = {"compact_candidates": _DEPTH, "large_candidates": _DEPTH, "early_exit_budget": _TENTH}
    tiers = settings.tiers.model_copy(update=deep)
    pair_cost = pair_costs(store.require("evaluation/scored_candidates"))
    uncut = fit_calibration(dev, of_dev)
    calibration = replace(uncut, early_exit=fit_early_exit(dev, of_dev, uncut, tiers, pair_cost).early_exit)

    def outcome(rankings: pd.DataFrame) -> np.ndarray:
        measured = evaluate_run(collapse_to_documents(rankings), judgments, ["nDCG@10"])
        return measured.sort_values("query_id")["value"].to_numpy()

    everything = {"compact": np.empty(0, dtype=np.int64), "large": np.arange(len(table))}
    full = outcome(ranked(table, calibration.tiers["large"].logits(candidate_inputs(table))))
    full_ms, full_gflop = costs.of(everything, len(queries))
    ranking, rows = _cascade(table, calibration, tiers)
    ours = outcome(ranking)
    ms, gflop = costs.of(rows, len(queries))
    stopped = [
        (budget, replace(uncut, early_exit=fit_budget(dev, of_dev, uncut, tiers, pair_cost, budget).early_exit))
        for budget in _BUDGETS
    ]
    points = _points(table, calibration, stopped, tiers, costs, outcome, len(queries))
    difference = ours - full
    rng = np.random.default_rng(0)
    means = rng.choice(difference, size=(10_000, len(difference))).mean(axis=1)
    figures: dict[str, Any] = {
        "queries": len(queries),
        "candidates": _DEPTH,
        "ndcg_large_on_all": round(float(full.mean()), 4),
        "ndcg_cascade": round(float(ours.mean()), 4),
        "ndcg_delta": round(float(difference.mean()), 4),
        "ndcg_delta_interval": [round(float(value), 4) for value in np.percentile(means, [2.5, 97.5])],
        "ms": {"large_on_all": round(full_ms, 1), "cascade": round(ms, 1)},
        "gflop": {"large_on_all": round(full_gflop, 2), "cascade": round(gflop, 2)},
        "time_ratio": round(ms / full_ms, 4),
        "flops_ratio": round(gflop / full_gflop, 4),
        "pairs_per_query": {size: round(len(rows[size]) / len(queries), 2) for size in rows},
        "skipped": sorted(calibration.early_exit.skipped),
        "above_single_models": _margins(points),
        "points": points,
    }
    name = corpus_name(settings)
    _plot(points, figures, RESULTS.parent / "images" / f"cascade-{name}.png")
    print(merge({"cascade": {name: figures}}))


def _candidates(bundle: LoadedBundle, queries: pd.DataFrame) -> pd.DataFrame:
    """What the first stage finds for each query."""
    return pd.DataFrame(
        [
            (
                query_id,
                candidate.passage_id,
                candidate.document_id,
                candidate.rank,
                candidate.dense_score,
                candidate.lexical_score,
            )
            for query_id, text in zip(queries["query_id"], queries["text"], strict=True)
            for candidate in bundle.retrieve(text, _DEPTH, None)
        ],
        columns=["query_id", "passage_id", "document_id", "rank", "dense_score", "lexical_score"],
    )


def _score(
    table: pd.DataFrame, pairs: list[tuple[str, str]], folder: Path, max_tokens: int
) -> tuple[pd.DataFrame, Costs]:
    """Both models' logits of all pairs. A pair's seconds are those of its query's pairs, shared by operations."""
    costs = Costs({}, {})
    for size, engine in load_engines(folder / "engines", model_folders(folder), max_tokens).items():
        config = AutoConfig.from_pretrained(str(folder / size), local_files_only=True)
        encoded = engine.encode(pairs)
        flops = np.array([pair_flops(config, len(encoding)) for encoding in encoded])
        logits, seconds = np.empty(len(pairs)), np.empty(len(pairs))
        engine.logits_of(encoded[:32])
        for done, rows in enumerate(table.groupby("query_id").indices.values(), start=1):
            started = time.perf_counter()
            logits[rows] = engine.logits_of([encoded[row] for row in rows])
            taken = time.perf_counter() - started
            seconds[rows] = taken * flops[rows] / flops[rows].sum()
            print(f"{size}: {done} queries", end="\r", file=sys.stderr)
        table = table.assign(**{f"{size}_logit": logits})
        costs.seconds[size], costs.flops[size] = seconds, flops
    return table, costs


def _cascade(
    table: pd.DataFrame, calibration: Calibration, tiers: TiersSettings
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The tiered ranking, and the rows of the table that each model scored."""
    ranking = tiered_ranking(table, calibration, tiers)
    rows = table.assign(row=np.arange(len(table))).merge(
        ranking[["query_id", "passage_id", "tier"]], on=["query_id", "passage_id"]
    )
    asked = asked_of(rows["tier"], calibration.early_exit)
    return ranking, {size: rows.loc[of_model, "row"].to_numpy(np.int64) for size, of_model in asked.items()}


def _margins(points: list[dict[str, Any]]) -> dict[str, float]:
    """By single-model point, the best nDCG@10 of the cascade at no more time, less that of the point."""
    ours = [point for point in points if point["system"] == "cascade"]
    margins = {}
    for point in points:
        affordable = [other["ndcg"] for other in ours if other["ms"] <= point["ms"]]
        if point["system"] != "cascade" and affordable:
            margins[f"{point['system']} on {point['pairs'][0]}"] = round(max(affordable) - point["ndcg"], 4)
    return margins


def ranked(table: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    """The table with the `rank` of each candidate of a query by its score, ties as in the cascade."""
    ranks, ids = np.empty(len(table), dtype=np.int64), table["passage_id"].to_numpy()
    for rows in map(np.asarray, table.groupby("query_id").indices.values()):
        order = best_first(scores[rows], tie_ranks(ids[rows].tolist()))
        ranks[rows[order]] = np.arange(1, len(rows) + 1)
    return table.assign(rank=ranks)


def _points(
    table: pd.DataFrame,
    calibration: Calibration,
    stopped: list[tuple[float, Calibration]],
    tiers: TiersSettings,
    costs: Costs,
    outcome: Callable[[pd.DataFrame], np.ndarray],
    queries: int,
) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for budget, fitted in stopped:
        ranking, rows = _cascade(table, fitted, tiers)
        ms, gflop = costs.of(rows, queries)
        pairs = [round(len(rows[size]) / queries, 2) for size in rows]
        points.append(
            {"system": "cascade", "budget": budget, "pairs": pairs, "ms": ms, "gflop": gflop, "ranking": ranking}
        )
    inputs = candidate_inputs(table)
    for size in (tier.name for tier in MODEL_TIERS):
        logits = calibration.tiers[size].logits(inputs)
        lean = calibration.tiers["lean"].logits(inputs)
        for count in _SINGLE:
            asked = []
            scores = lean - 1000.0
            for of_query in map(np.asarray, table.groupby("query_id").indices.values()):
                ties = tie_ranks(table["passage_id"].to_numpy()[of_query].tolist())
                best = of_query[best_first(lean[of_query], ties)[:count]]
                scores[best] = logits[best]
                asked.append(best)
            ms, gflop = costs.of({size: np.concatenate(asked)}, queries)
            ranking = ranked(table, scores)
            points.append({"system": size, "pairs": [count], "ms": ms, "gflop": gflop, "ranking": ranking})
    return [
        {
            **{name: value for name, value in point.items() if name != "ranking"},
            "ms": round(point["ms"], 2),
            "gflop": round(point["gflop"], 3),
            "ndcg": round(float(outcome(point["ranking"]).mean()), 4),
        }
        for point in points
    ]


def _plot(points: list[dict[str, Any]], figures: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=120, layout="constrained")
    for system in ("compact", "large", "cascade"):
        line = sorted((point["ms"], point["ndcg"]) for point in points if point["system"] == system)
        axes.plot(*zip(*line, strict=True), marker="o", label=system)
    axes.plot([figures["ms"]["cascade"]], [figures["ndcg_cascade"]], "k*", markersize=14, label="as set")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds of scoring per query")
    axes.set_ylabel("nDCG@10")
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
