"""How the windows of `models.cascade.windows` are chosen, on the scored candidates of the current deployment.

`python -m bench.stopping` scores nothing anew. It writes `stopping` of docs/benchmarks/results.json, under the name of
the corpus: for pairs of windows, which figure of the development queries tells nDCG@10 of the test queries (correlation
of the expected loss and of nDCG@10 itself); and by budget, the windows that are fitted and what they give on both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench.engines import corpus_name
from bench.results import merge
from models.cascade.calibration import Calibration, fit_calibration
from models.cascade.offline import pairs_per_query, rerank, tiered_ranking
from models.cascade.window_fitting import ExpectedOutcomes, FittedStopping, fit_stopping
from models.cascade.windows import Stopping
from models.evaluation.evaluation_set import split_of
from models.measures.metrics import collapse_to_documents, evaluate_run, mean_values
from models.settings import TiersSettings, load_settings
from models.store.artifacts import ArtifactStore

_BUDGETS = (3.0, 6.0, 9.5, 15.0, 0.0)
_TRIED = 24


def main() -> None:
    """Measure, print and write."""
    settings = load_settings()
    store = ArtifactStore.of(settings)
    candidates = store.require("evaluation/scored_candidates")
    scored = candidates.read_table("scored.parquet")
    evaluation_set = store.require("corpus/evaluation_set")
    splits = {name: split_of(evaluation_set, name) for name in ("dev", "test")}
    tables: dict[str, Any] = {
        name: scored[scored["query_id"].isin(queries["query_id"])] for name, (queries, _) in splits.items()
    }
    judged = {name: judgments for name, (_, judgments) in splits.items()}
    cost = float(candidates.summary["compact_cost"])
    calibration = fit_calibration(tables["dev"], judged["dev"])
    tiers = settings.tiers
    rankings = rerank(tables["test"], calibration, tiers)
    found: dict[str, Any] = {
        "queries": {name: int(table["query_id"].nunique()) for name, table in tables.items()},
        "compact_cost": round(cost, 3),
        "test_ndcg": {name: round(ndcg(rankings[name], judged["test"]), 4) for name in ("lean", "compact", "large")},
        "correlation_with_test_ndcg": _correlations(tables, judged, calibration, tiers, cost),
        "budgets": [_row(tables, judged, calibration, tiers, cost, budget) for budget in _BUDGETS],
    }
    print(merge({"stopping": {corpus_name(settings): found}}))


def fit_budget(
    dev: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    cost: float,
    budget: float,
) -> FittedStopping:
    """The windows that lose least within a budget, all of which may be spent."""
    limits = tiers.model_copy(update={"stopping_budget": budget, "max_stopping_loss": 0.0})
    return fit_stopping(dev, judgments, calibration, limits, cost)


def ndcg(ranking: pd.DataFrame, judgments: pd.DataFrame) -> float:
    """Mean nDCG@10 of a ranking."""
    return mean_values(evaluate_run(collapse_to_documents(ranking), judgments, ["nDCG@10"]))["nDCG@10"]


def _correlations(
    tables: dict[str, pd.DataFrame],
    judged: dict[str, pd.DataFrame],
    calibration: Calibration,
    tiers: TiersSettings,
    cost: float,
) -> dict[str, float]:
    """Of two figures of the development queries with nDCG@10 of the test queries, over windows drawn at random."""
    expected = ExpectedOutcomes(tables["dev"], calibration, tiers, cost)
    choices = expected.choices()
    drawn = np.random.default_rng(0).choice(len(choices), min(_TRIED, len(choices)), replace=False)
    values: dict[str, list[float]] = {"dev": [], "test": []}
    for place in drawn:
        for name, table in tables.items():
            stopped = replace(calibration, stopping=choices[place])
            values[name].append(ndcg(tiered_ranking(table, stopped, tiers), judged[name]))
    told = {"expected_ndcg": [expected.of(choices[place])[1] for place in drawn], "ndcg": values["dev"]}
    return {name: round(float(np.corrcoef(figure, values["test"])[0, 1]), 3) for name, figure in told.items()}


def _row(
    tables: dict[str, pd.DataFrame],
    judged: dict[str, pd.DataFrame],
    calibration: Calibration,
    tiers: TiersSettings,
    cost: float,
    budget: float,
) -> dict[str, Any]:
    fitted = fit_budget(tables["dev"], judged["dev"], calibration, tiers, cost, budget)
    ranking = tiered_ranking(tables["test"], replace(calibration, stopping=fitted.stopping), tiers)
    pairs = pairs_per_query(ranking, fitted.stopping)
    return {
        "budget": budget,
        "windows": {} if fitted.stopping == Stopping() else fitted.stopping.to_dict(),
        "expected_loss": round(fitted.expected_loss, 4),
        "dev_ndcg": round(fitted.ndcg_with, 4),
        "test_ndcg": round(ndcg(ranking, judged["test"]), 4),
        "test_pairs": {name: round(count, 2) for name, count in pairs.items()},
        "test_cost": round(cost * pairs["compact"] + pairs["large"], 2),
    }


if __name__ == "__main__":
    main()
