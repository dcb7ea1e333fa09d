"""Thresholds keep the share of answerable queries that they must, and refuse what is left without an answer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.cascade.answer_threshold import FEWEST_QUERIES, fit_answer_thresholds
from models.cascade.calibration import Calibration, TierScorer
from models.contracts.tiers import LEAN

SCORER = TierScorer(LEAN.features, (0.0,), (1.0,), (1.0,), 1.0, 0.0)
CALIBRATION = Calibration({LEAN.name: SCORER}, 0, {})
"""The score is the sigmoid of what the first stage gave."""


def table_of(best: list[float], others: list[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries with one relevant and one other candidate each, with their first-stage scores."""
    rows = [
        (f"q{query:03}", f"d{query}-{name}", score)
        for query, scores in enumerate(zip(best, others, strict=True))
        for name, score in zip(("right", "wrong"), scores, strict=True)
    ]
    scored = pd.DataFrame(rows, columns=["query_id", "document_id", "retriever_score"])
    scored = scored.assign(dense_score=0.0, lexical_score=0.0)
    judged = [(query, document, int(document.endswith("right"))) for query, document, _ in rows]
    return scored, pd.DataFrame(judged, columns=["query_id", "document_id", "grade"])


@pytest.mark.parametrize(("share", "kept"), [(1.0, 100), (0.95, 95), (0.5, 50), (0.001, 1)])
def test_it_is_the_highest_that_keeps_the_share(share: float, kept: int) -> None:
    best = np.random.default_rng(0).permutation(100).astype(float) / 10
    scored, judgments = table_of(best.tolist(), [-50.0] * 100)
    threshold = fit_answer_thresholds(scored, judgments, CALIBRATION, share)[LEAN.name]
    assert threshold.answered == pytest.approx(kept / 100)
    assert threshold.refused == 1.0
    # One step higher and one query fewer would be answered than the share asks for.
    assert threshold.score == pytest.approx(1 / (1 + np.exp(-np.sort(best)[100 - kept])))


def test_what_it_refuses_is_told_by_the_queries_without_their_relevant_documents() -> None:
    scored, judgments = table_of([2.0] * 20, [1.0] * 15 + [3.0] * 5)
    threshold = fit_answer_thresholds(scored, judgments, CALIBRATION, 0.95)[LEAN.name]
    assert threshold.refused == 0.75
    alike = fit_answer_thresholds(*table_of([2.0] * 20, [2.0] * 20), CALIBRATION, 0.95)[LEAN.name]
    assert (alike.answered, alike.refused) == (1.0, 0.0)


def test_queries_whose_relevant_passage_was_not_retrieved_have_no_part() -> None:
    scored, judgments = table_of([2.0] * 20 + [-9.0] * 20, [1.0] * 40)
    missed = scored["document_id"].str.endswith("right") & (scored["retriever_score"] == -9.0)
    everything = fit_answer_thresholds(scored[~missed], judgments, CALIBRATION, 0.95)
    assert everything == fit_answer_thresholds(scored[scored["query_id"] < "q020"], judgments, CALIBRATION, 0.95)


def test_too_few_queries_fit_none() -> None:
    few = FEWEST_QUERIES - 1
    assert fit_answer_thresholds(*table_of([1.0] * few, [0.0] * few), CALIBRATION, 0.95) == {}


def test_it_is_stored_with_the_calibration_and_older_ones_have_none() -> None:
    thresholds = fit_answer_thresholds(*table_of([1.0] * 20, [0.0] * 20), CALIBRATION, 0.95)
    stored = json.loads(json.dumps(replace(CALIBRATION, answer_thresholds=thresholds).to_dict()))
    assert Calibration.from_dict(stored).answer_thresholds == thresholds
    del stored["answer_thresholds"]
    assert Calibration.from_dict(stored).answer_thresholds == {}
