"""Which candidates the next model is asked about, and how that is fitted."""

from __future__ import annotations

import json
from math import inf

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cascade.calibration import Calibration, TierScorer, fit_calibration
from models.cascade.offline import pairs_per_query, tiered_ranking
from models.cascade.window_fitting import fit_stopping
from models.cascade.windows import Stopping, best_rows, contenders, in_turn
from models.evaluation.evaluation_set import split_of
from models.settings import TiersSettings
from tests.small_bundle import Small

LOGITS = np.array([0.0, 3.0, 2.5, -1.0, 2.5])
IDS = ["e", "d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("most", "window", "expected"),
    [
        (5, inf, [1, 4, 2, 0, 3]),
        (2, inf, [1, 4]),
        (5, 0.5, [1, 4, 2]),
        (2, 0.5, [1, 4]),
        (5, 0.4, []),
        (1, inf, [1]),
        (1, 9.0, []),
        (0, inf, []),
    ],
)
def test_contenders_are_near_the_best(most: int, window: float, expected: list[int]) -> None:
    assert contenders(LOGITS, IDS, most, window).tolist() == expected


@given(
    st.lists(st.floats(-5, 5), max_size=12),
    st.integers(0, 14),
    st.floats(0, 4),
    st.floats(0, 4),
)
def test_a_wider_window_keeps_all_and_the_order_is_of_the_best(
    values: list[float], most: int, first: float, second: float
) -> None:
    logits, ids = np.array(values), [str(place) for place in range(len(values))]
    narrow, wide = (contenders(logits, ids, most, window).tolist() for window in sorted((first, second)))
    assert wide[: len(narrow)] == narrow
    assert best_rows(logits, ids, most).tolist()[: len(wide)] == wide


def test_it_is_kept_as_json() -> None:
    for stopping in (Stopping(), Stopping(1.5, inf), Stopping(0.0, 2.0), Stopping(large=2.0, through_compact=False)):
        assert Stopping.from_dict(json.loads(json.dumps(stopping.to_dict()))) == stopping


def test_calibrations_without_it_ask_about_all(small: Small) -> None:
    values = small.first.bundle.read_json("calibration.json")
    values.pop("stopping")
    assert Calibration.from_dict(values).stopping == Stopping()


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
        tiers = TiersSettings(stopping_budget=budget, max_stopping_loss=0)
        fitted = fit_stopping(scored, judgments, calibration, tiers, 0.5)
        assert cost(fitted.pairs_with) <= budget < cost(fitted.pairs_without)
        losses.append(fitted.expected_loss)
        ranking = tiered_ranking(scored, Calibration(calibration.tiers, 1, {}, fitted.stopping), tiers)
        assert pairs_per_query(ranking, fitted.stopping) == fitted.pairs_with
    assert losses == sorted(losses)


@pytest.mark.parametrize(("compact_cost", "knows", "through_compact"), [(0.9, False, False), (0.01, True, True)])
def test_the_compact_model_is_asked_where_it_earns_its_time(
    compact_cost: float, knows: bool, through_compact: bool
) -> None:
    """Dear and blind it is left out; cheap and as good as the large one, it finds the few for that one."""
    rng = np.random.default_rng(0)
    rows = [(f"q{query}", f"p{place:02d}") for query in range(40) for place in range(20)]
    large = rng.normal(size=len(rows)) * 3
    scored = pd.DataFrame(rows, columns=["query_id", "passage_id"]).assign(
        document_id=lambda table: table["passage_id"],
        dense_score=rng.normal(size=len(rows)),
        lexical_score=rng.random(len(rows)),
        compact_logit=large if knows else rng.normal(size=len(rows)),
        large_logit=large,
    )
    best = scored.loc[scored.groupby("query_id")["large_logit"].idxmax()]
    judgments = best[["query_id", "document_id"]].assign(grade=1)
    tiers = TiersSettings(stopping_budget=5, max_stopping_loss=0)
    calibration = fit_calibration(scored, judgments)
    fitted = fit_stopping(scored, judgments, calibration, tiers, compact_cost)
    assert fitted.stopping.through_compact is through_compact
    assert (fitted.pairs_with["compact"] > 0) is through_compact
    assert compact_cost * fitted.pairs_with["compact"] + fitted.pairs_with["large"] <= 5


def test_less_than_the_budget_is_spent_where_it_does(small: Small) -> None:
    scored, judgments = dev_table(small)
    calibration = fit_calibration(scored, judgments)
    all_of_it, some = (
        fit_stopping(scored, judgments, calibration, TiersSettings(max_stopping_loss=loss), 0.5) for loss in (0, 0.05)
    )
    assert cost(some.pairs_with) < cost(all_of_it.pairs_with)
    assert all_of_it.expected_loss < some.expected_loss <= 0.05


def test_without_budget_and_loss_there_are_none(small: Small) -> None:
    scored, judgments = dev_table(small)
    tiers = TiersSettings(stopping_budget=0, max_stopping_loss=0)
    fitted = fit_stopping(scored, judgments, fit_calibration(scored, judgments), tiers, 0.5)
    assert fitted.stopping == Stopping()
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
    free = fit_stopping(scored, judgments, calibration, TiersSettings(max_stopping_loss=0.1), 0.5)
    assert (free.pairs_with, free.expected_loss) == ({"compact": 0.0, "large": 2.0}, pytest.approx(0, abs=1e-6))
    none = TiersSettings(stopping_budget=0.5, max_stopping_loss=0.1)
    dear = fit_stopping(scored, judgments, calibration, none, 0.5)
    assert dear.pairs_with == {"compact": 0.0, "large": 0.0}
    assert dear.expected_loss == pytest.approx(1 - 1 / np.log2(3), abs=1e-6)
    assert (dear.ndcg_without, dear.ndcg_with) == (1, pytest.approx(1 / np.log2(3)))


def test_what_a_model_was_asked_about_stays_above_the_rest() -> None:
    logits = np.array([3.0, -4.0, 1.0, 2.0, -5.0])
    found = in_turn(logits, ["lean", "large", "compact", "lean", "large"])
    assert found[[1, 4]].tolist() == [-4.0, -5.0]
    assert found[2] == pytest.approx(-5.0, abs=1e-5)
    assert found[2] < -5.0
    assert found[0] < found[2]
    assert found[0] - found[3] == pytest.approx(1.0)
    assert logits.tolist() == [3.0, -4.0, 1.0, 2.0, -5.0]


def test_scores_in_turn_are_left_as_they_are() -> None:
    logits = np.array([3.0, 1.0, -2.0])
    assert in_turn(logits, ["large", "compact", "lean"]).tolist() == logits.tolist()
    assert in_turn(logits, ["lean"] * 3).tolist() == logits.tolist()
    assert in_turn(np.empty(0), []).shape == (0,)
