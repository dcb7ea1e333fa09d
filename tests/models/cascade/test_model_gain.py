"""What models add is told where it is known: models that know the answer, and models of noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from models.cascade.calibration import fit_calibration
from models.cascade.model_gain import MIN_QUERIES, cross_fitted_gain
from models.cascade.offline import pairs_per_query, tiered_ranking
from models.cascade.windows import EarlyExit
from models.settings import TiersSettings
from tests.models.cascade.test_calibration import scored


def test_models_that_know_more_than_the_first_stage_gain() -> None:
    table, judgments = scored(120)
    gain = cross_fitted_gain(table, judgments, TiersSettings(compact_candidates=20, large_candidates=20))
    assert gain is not None
    assert gain > 0.1


def test_models_of_noise_gain_nothing() -> None:
    """Fitted and judged on the same queries, noise would seem to help."""
    table, judgments = scored(120)
    noise = np.random.default_rng(3).normal(size=(2, len(table)))
    table = table.assign(compact_logit=noise[0], large_logit=noise[1])
    gain = cross_fitted_gain(table, judgments, TiersSettings(compact_candidates=20, large_candidates=20))
    assert gain is not None
    assert gain < 0.02


def test_of_few_queries_nothing_is_said() -> None:
    assert (
        cross_fitted_gain(*scored(MIN_QUERIES - 1), TiersSettings(compact_candidates=20, large_candidates=20)) is None
    )
    table, judgments = scored(40)
    assert (
        cross_fitted_gain(table, judgments.assign(grade=0), TiersSettings(compact_candidates=20, large_candidates=20))
        is None
    )


def test_lean_alone_asks_no_model_and_ranks_as_the_first_stage() -> None:
    table, judgments = scored(30)
    calibration = replace(fit_calibration(table, judgments), early_exit=EarlyExit.lean_alone())
    ranking = tiered_ranking(table, calibration, TiersSettings(compact_candidates=20, large_candidates=20))
    assert set(ranking["tier"]) == {"lean"}
    assert pairs_per_query(ranking, calibration.early_exit) == {"compact": 0.0, "large": 0.0}
    expected: pd.DataFrame = table.sort_values(["query_id", "retriever_score"], ascending=[True, False])
    assert ranking["passage_id"].tolist() == expected["passage_id"].tolist()
