"""The rankings that serving would give, from tables of candidates that the models have scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, TierScorer, candidate_inputs
from models.cascade.cascade import CombinedScores, best_first, final_scores, tie_ranks, walk
from models.cascade.windows import EarlyExit
from models.contracts.tiers import LEAN, MODEL_TIERS, Tier, candidate_limits
from models.settings import TiersSettings

RANKING_COLUMNS = ["query_id", "passage_id", "document_id", "rank", "score"]


def rerank(scored: pd.DataFrame, calibration: Calibration, settings: TiersSettings) -> dict[str, pd.DataFrame]:
    """Rankings of the scored candidates: one by each tier's scorer alone, and `tiered`.

    The first sort all candidates by one scorer; `tiered` is what serving does without a deadline. Columns as in
    `RANKING_COLUMNS`, `tiered` with `tier`, `dense_score` and `lexical_score` besides; `score` is the combined logit.
    """
    rankings = {tier.name: _by_scorer(scored, calibration.tiers[tier.name]) for tier in (LEAN, *calibration.models)}
    return rankings | {"tiered": tiered_ranking(scored, calibration, settings)}


def tiered_ranking(scored: pd.DataFrame, calibration: Calibration, settings: TiersSettings) -> pd.DataFrame:
    """What serving makes of the scored candidates without a deadline: `RANKING_COLUMNS`, `tier`, `dense_score` and
    `lexical_score`."""
    columns, ids = candidate_inputs(scored), scored["passage_id"].to_numpy()
    limits = candidate_limits(settings)
    orders: list[NDArray[np.int64]] = []
    logits: list[NDArray[np.float64]] = []
    tiers: list[Tier] = []
    for rows in _rows_by_query(scored):
        inputs = {name: values[rows] for name, values in columns.items()}
        scores = CombinedScores(calibration, inputs, ids[rows].tolist())
        final = final_scores(walk(scores.first(), calibration.early_exit, limits, scores.standing))
        best = scores.order(final)
        orders.append(rows[best])
        logits.append(final.logits[best])
        tiers += [final.tiers[row] for row in best]
    table = _ranked(scored, orders, logits).assign(tier=tiers)
    return table.reindex(columns=[*RANKING_COLUMNS, "tier", "dense_score", "lexical_score"])


def pairs_per_query(tiered: pd.DataFrame, early_exit: EarlyExit) -> dict[str, float]:
    """Mean pairs of a query that each model scored, from the tiers of a `tiered_ranking` made with `early_exit`."""
    queries = max(tiered["query_id"].nunique(), 1)
    return {name: int(rows.sum()) / queries for name, rows in asked_of(pd.Series(tiered["tier"]), early_exit).items()}


def asked_of(tiers: pd.Series, early_exit: EarlyExit) -> dict[str, pd.Series]:
    """For each model whether it scored the candidates of these tiers: one that was asked scored those of all later
    models too."""
    names = [tier.name for tier in MODEL_TIERS]
    return {
        name: tiers.isin([name] if name in early_exit.skipped else names[position:])
        for position, name in enumerate(names)
    }


def _by_scorer(scored: pd.DataFrame, scorer: TierScorer) -> pd.DataFrame:
    columns, ids = candidate_inputs(scored), scored["passage_id"].to_numpy()
    orders: list[NDArray[np.int64]] = []
    logits: list[NDArray[np.float64]] = []
    for rows in _rows_by_query(scored):
        combined = scorer.logits({name: values[rows] for name, values in columns.items()})
        best = best_first(combined, tie_ranks(ids[rows].tolist()))
        orders.append(rows[best])
        logits.append(combined[best])
    return _ranked(scored, orders, logits).reindex(columns=RANKING_COLUMNS)


def _rows_by_query(scored: pd.DataFrame) -> Iterator[NDArray[np.int64]]:
    """The rows of each query, in the order of the ids of the queries."""
    rows = scored.groupby("query_id").indices
    return (np.asarray(rows[query_id]) for query_id in sorted(rows, key=str))


def _ranked(
    scored: pd.DataFrame, orders: Sequence[NDArray[np.int64]], logits: Sequence[NDArray[np.float64]]
) -> pd.DataFrame:
    """The rows of each query in their order, with `rank` from 1 and `score`."""
    ranks = [np.arange(1, len(order) + 1) for order in orders]
    return (
        scored.iloc[np.concatenate(orders)]
        .reset_index(drop=True)
        .assign(rank=np.concatenate(ranks), score=np.concatenate(logits))
    )
