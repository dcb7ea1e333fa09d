"""How the windows of `models.cascade.windows` are chosen, on the scored candidates of the current deployment.

`python -m bench.early_exits` scores nothing anew. It writes `stopping` of docs/benchmarks/results.json, under the name
of the corpus: for windows, which figure of the development queries tells nDCG@10 of the test queries (correlation
of the expected loss and of nDCG@10 itself); and by budget, the windows that are fitted and what they give on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench.engines import corpus_name
from bench.results import merge
from models.cascade.calibration import Calibration, fit_calibration
from models.cascade.offline import pairs_per_query, rerank, tiered_ranking
from models.cascade.window_fitting import ExpectedOutcomes, FittedEarlyExit, fit_early_exit
from models.cascade.windows import EarlyExit
from models.contracts.tiers import TIERS
from models.evaluation.evaluation_set import split_of
from models.evaluation.scored_candidates import pair_costs
from models.measures.metrics import collapse_to_documents, evaluate_run, mean_values
from models.settings import TiersSettings, load_settings
from models.store.artifacts import ArtifactStore
from models.training.corpus_defaults import settings_in_force

_BUDGETS = (3.0, 6.0, 9.5, 15.0, 0.0)
_TRIED = 24


def main() -> None:
    """Measure, print and write."""
    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    candidates = store.require("evaluation/scored_candidates")
    scored = candidates.read_table("scored.parquet")
    evaluation_set = store.require("corpus/evaluation_set")
    splits = {name: split_of(evaluation_set, name) for name in ("dev", "test")}
    tables: dict[str, Any] = {
        name: scored[scored["query_id"].isin(queries["query_id"])] for name, (queries, _) in splits.items()
    }
    judged = {name: judgments for name, (_, judgments) in splits.items()}
    costs = pair_costs(candidates)
    calibration = fit_calibration(tables["dev"], judged["dev"])
    tiers = settings.tiers
    rankings = rerank(tables["test"], calibration, tiers)
    figures: dict[str, Any] = {
        "queries": {name: int(table["query_id"].nunique()) for name, table in tables.items()},
        "pair_costs": {name: round(cost, 3) for name, cost in costs.items()},
        "test_ndcg": {name: round(ndcg(rankings[name], judged["test"]), 4) for name in (tier.name for tier in TIERS)},
        "correlation_with_test_ndcg": _correlations(tables, judged, calibration, tiers, costs),
        "budgets": [_row(tables, judged, calibration, tiers, costs, budget) for budget in _BUDGETS],
    }
    print(merge({"stopping": {corpus_name(settings): figures}}))


def fit_budget(
    dev: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    costs: Mapping[str, float],
    budget: float,
) -> FittedEarlyExit:
    """The windows that lose least within a budget, all of which may be spent."""
    limits = tiers.model_copy(update={"early_exit_budget": budget, "max_early_exit_loss": 0.0})
    return fit_early_exit(dev, judgments, calibration, limits, costs)


def ndcg(ranking: pd.DataFrame, judgments: pd.DataFrame) -> float:
    """Mean nDCG@10 of a ranking."""
    return mean_values(evaluate_run(collapse_to_documents(ranking), judgments, ["nDCG@10"]))["nDCG@10"]


def _correlations(
    tables: dict[str, pd.DataFrame],
    judged: dict[str, pd.DataFrame],
    calibration: Calibration,
    tiers: TiersSettings,
    costs: Mapping[str, float],
) -> dict[str, float]:
    """Of two figures of the development queries with nDCG@10 of the test queries, over windows drawn at random."""
    expected = ExpectedOutcomes(tables["dev"], calibration, tiers, costs)
    choices = list(expected.choices())
    drawn = np.random.default_rng(0).choice(len(choices), min(_TRIED, len(choices)), replace=False)
    values: dict[str, list[float]] = {"dev": [], "test": []}
    for number in drawn:
        for name, table in tables.items():
            exiting = replace(calibration, early_exit=choices[number])
            values[name].append(ndcg(tiered_ranking(table, exiting, tiers), judged[name]))
    told = {"expected_ndcg": [expected.of(choices[number])[1] for number in drawn], "ndcg": values["dev"]}
    return {name: round(float(np.corrcoef(figure, values["test"])[0, 1]), 3) for name, figure in told.items()}


def _row(
    tables: dict[str, pd.DataFrame],
    judged: dict[str, pd.DataFrame],
    calibration: Calibration,
    tiers: TiersSettings,
    costs: Mapping[str, float],
    budget: float,
) -> dict[str, Any]:
    fitted = fit_budget(tables["dev"], judged["dev"], calibration, tiers, costs, budget)
    ranking = tiered_ranking(tables["test"], replace(calibration, early_exit=fitted.early_exit), tiers)
    pairs = pairs_per_query(ranking, fitted.early_exit)
    return {
        "budget": budget,
        "windows": {} if fitted.early_exit == EarlyExit() else fitted.early_exit.to_dict(),
        "expected_loss": round(fitted.expected_loss, 4),
        "dev_ndcg": round(fitted.ndcg_with, 4),
        "test_ndcg": round(ndcg(ranking, judged["test"]), 4),
        "test_pairs": {name: round(count, 2) for name, count in pairs.items()},
        "test_cost": round(sum(costs[name] * count for name, count in pairs.items()), 2),
    }


if __name__ == "__main__":
    main()
