"""Windows are fitted to a budget and to a loss."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from models.cascade.calibration import Calibration, TierScorer, fit_calibration
from models.cascade.offline import pairs_per_query, tiered_ranking
from models.cascade.window_fitting import fit_early_exit
from models.cascade.windows import EarlyExit
from models.evaluation.evaluation_set import split_of
from models.settings import TiersSettings
from tests.small_bundle import Small

COSTS = {"compact": 0.5, "large": 1.0}
settings = partial(TiersSettings, compact_candidates=20, large_candidates=20)


def dev_table(small: Small) -> tuple[pd.DataFrame, pd.DataFrame]:
    queries, judgments = split_of(small.artifacts["corpus/evaluation_set"], "dev")
    version = small.first.evaluation.manifest.inputs["evaluation/scored_candidates"]
    scored = small.store.open("evaluation/scored_candidates", version).read_table("scored.parquet")
    return scored[scored["query_id"].isin(queries["query_id"])], judgments


def cost(pairs: dict[str, float]) -> float:
    return 0.5 * pairs["compact"] + pairs["large"]


def test_the_windows_keep_to_the_budget(small: Small) -> None:
    scored, judgments = dev_table(small)
    calibration = fit_calibration(scored, judgments)
    losses = []
    for budget in (6.0, 3.0, 1.0):
        tiers = settings(early_exit_budget=budget, max_early_exit_loss=0)
        fitted = fit_early_exit(scored, judgments, calibration, tiers, COSTS)
        assert cost(fitted.pairs_with) <= budget < cost(fitted.pairs_without)
        losses.append(fitted.expected_loss)
        ranking = tiered_ranking(scored, Calibration(calibration.tiers, 1, {}, fitted.early_exit), tiers)
        assert pairs_per_query(ranking, fitted.early_exit) == fitted.pairs_with
    assert losses == sorted(losses)


@pytest.mark.parametrize(("compact_cost", "knows", "use_compact"), [(0.9, False, False), (0.01, True, True)])
def test_the_compact_model_is_asked_where_it_earns_its_time(
    compact_cost: float, knows: bool, use_compact: bool
) -> None:
    """Dear and blind it is left out; cheap and as good as the large one, it finds the few for that one."""
    rng = np.random.default_rng(0)
    rows = [(f"q{query}", f"p{index:02d}") for query in range(40) for index in range(20)]
    large = rng.normal(size=len(rows)) * 3
    scored = pd.DataFrame(rows, columns=["query_id", "passage_id"]).assign(
        document_id=lambda table: table["passage_id"],
        dense_score=rng.normal(size=len(rows)),
        lexical_score=rng.random(len(rows)),
        retriever_score=rng.random(len(rows)),
        compact_logit=large if knows else rng.normal(size=len(rows)),
        large_logit=large,
    )
    best = scored.loc[scored.groupby("query_id")["large_logit"].idxmax()]
    judgments = best[["query_id", "document_id"]].assign(grade=1)
    tiers = settings(early_exit_budget=5, max_early_exit_loss=0)
    calibration = fit_calibration(scored, judgments)
    fitted = fit_early_exit(scored, judgments, calibration, tiers, {"compact": compact_cost, "large": 1.0})
    assert ("compact" not in fitted.early_exit.skipped) is use_compact
    assert (fitted.pairs_with["compact"] > 0) is use_compact
    assert compact_cost * fitted.pairs_with["compact"] + fitted.pairs_with["large"] <= 5


def test_less_than_the_budget_is_spent_where_it_does(small: Small) -> None:
    scored, judgments = dev_table(small)
    calibration = fit_calibration(scored, judgments)
    all_of_it, some = (
        fit_early_exit(scored, judgments, calibration, settings(max_early_exit_loss=loss), COSTS) for loss in (0, 0.05)
    )
    assert cost(some.pairs_with) < cost(all_of_it.pairs_with)
    assert all_of_it.expected_loss < some.expected_loss <= 0.05


def test_without_budget_and_loss_there_are_none(small: Small) -> None:
    scored, judgments = dev_table(small)
    tiers = settings(early_exit_budget=0, max_early_exit_loss=0)
    fitted = fit_early_exit(scored, judgments, fit_calibration(scored, judgments), tiers, COSTS)
    assert fitted.early_exit == EarlyExit()
    assert fitted.pairs_with == fitted.pairs_without
    assert fitted.expected_loss == 0


def test_a_window_counts_what_a_sure_model_would_turn_round() -> None:
    """One query of two candidates that the first stage holds for equal, and the large model does not."""
    tier = {"mean": (0.0,), "scale": (1.0,), "weights": (1.0,), "slope": 1.0, "offset": 0.0}
    tiers = {
        name: TierScorer(features=(feature,), **tier)
        for name, feature in (("lean", "dense"), ("compact", "compact"), ("large", "large"))
    }
    scored = pd.DataFrame(
        {
            "query_id": "q",
            "passage_id": ["a", "b", "c"],
            "document_id": ["a", "b", "c"],
            "rank": [1, 2, 3],
            "dense_score": [1.0, 0.9, -20.0],
            "lexical_score": 0.0,
            "compact_logit": [0.0, 0.0, -20.0],
            "large_logit": [-20.0, 20.0, -20.0],
        }
    )
    judgments = pd.DataFrame({"query_id": ["q"], "document_id": ["b"], "grade": [1]})
    calibration = Calibration(tiers, 1, {})
    free = fit_early_exit(scored, judgments, calibration, settings(max_early_exit_loss=0.1), COSTS)
    assert (free.pairs_with, free.expected_loss) == ({"compact": 0.0, "large": 2.0}, pytest.approx(0, abs=1e-6))
    none = settings(early_exit_budget=0.5, max_early_exit_loss=0.1)
    dear = fit_early_exit(scored, judgments, calibration, none, COSTS)
    assert dear.pairs_with == {"compact": 0.0, "large": 0.0}
    assert dear.expected_loss == pytest.approx(1 - 1 / np.log2(3), abs=1e-6)
    assert (dear.ndcg_without, dear.ndcg_with) == (1, pytest.approx(1 / np.log2(3)))
