"""Below which best score a question counts as one that no passage answers, fitted on the development queries.

The threshold of a tier is the highest that still answers a share (`generator.answered_share`) of the development
queries which have a relevant passage among their candidates. What it refuses is told by the same queries with their
relevant documents taken out: what is left is near the question and does not answer it, which is harder than a question
from elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.cascade.calibration import AnswerThreshold, Calibration, candidate_inputs, probability

FEWEST_QUERIES = 10
"""Answerable development queries below which no threshold is fitted: a share of fewer is one query or none."""


def fit_answer_thresholds(
    scored: pd.DataFrame, judgments: pd.DataFrame, calibration: Calibration, share: float
) -> dict[str, AnswerThreshold]:
    """The threshold of each tier of `calibration`, by name; none where fewer than `FEWEST_QUERIES` are answerable.

    `scored` and `judgments` are those of `fit_calibration`; `share` is that of the queries which stay answered, 0 to 1.
    """
    relevant = judgments.loc[judgments["grade"] > 0, ["query_id", "document_id"]].drop_duplicates()
    hit = scored.merge(relevant.assign(hit=True), on=["query_id", "document_id"], how="left")["hit"].notna().to_numpy()
    answerable = np.unique(scored["query_id"].to_numpy()[hit])
    if len(answerable) < FEWEST_QUERIES:
        return {}
    asked = scored["query_id"].isin(answerable).to_numpy()
    inputs = candidate_inputs(scored)
    thresholds: dict[str, AnswerThreshold] = {}
    for name, scorer in calibration.tiers.items():
        scores = pd.Series(probability(scorer.logits(inputs)), index=scored["query_id"])
        with_them = _best(scores[asked])
        # Of a query whose candidates are all relevant nothing is left, and so nothing is told.
        without = _best(scores[asked & ~hit])
        threshold = float(np.sort(with_them)[math.floor((1 - share) * len(with_them) + 1e-9)])
        thresholds[name] = AnswerThreshold(
            threshold,
            float(np.mean(with_them >= threshold)),
            float(np.mean(without < threshold)) if len(without) else 0.0,
        )
    return thresholds


def _best(scores: pd.Series[float]) -> NDArray[np.float64]:
    return np.asarray(scores.groupby(level=0).max(), dtype=np.float64)
