# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportReturnType=false
"""Which candidates the next model is asked about, and how that is fitted."""

from __future__ import annotations

import json
from math import inf

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import Calibration, fit_calibration
from models.offline_evaluation import split_of
from models.scoring import pairs_per_query, tiered_ranking
from models.settings import TiersSettings
from models.stopping import Stopping, best_rows, contenders
from models.stopping_fit import fit_stopping
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
    for stopping in (Stopping(), Stopping(1.5, inf), Stopping(0.0, 2.0)):
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


def test_the_windows_save_pairs_and_cost_no_more_than_they_may(small: Small) -> None:
    scored, judgments = dev_table(small)
    calibration = fit_calibration(scored, judgments)
    fitted = fit_stopping(scored, judgments, calibration, TiersSettings(max_stopping_loss=0.01))
    assert fitted.ndcg_with >= fitted.ndcg_without - 0.01
    assert fitted.pairs_with["large"] < fitted.pairs_without["large"]
    assert fitted.pairs_with["compact"] <= fitted.pairs_without["compact"]
    ranking = tiered_ranking(
        scored, Calibration(calibration.tiers, 1, {}, fitted.stopping), TiersSettings(max_stopping_loss=0.01)
    )
    assert pairs_per_query(ranking) == fitted.pairs_with


def test_at_no_loss_there_are_none(small: Small) -> None:
    scored, judgments = dev_table(small)
    fitted = fit_stopping(scored, judgments, fit_calibration(scored, judgments), TiersSettings(max_stopping_loss=0))
    assert fitted.stopping == Stopping()
    assert fitted.pairs_with == fitted.pairs_without
