"""What the models add to the first stage on the development queries, judged on queries that nothing was fitted on."""

from __future__ import annotations

import pandas as pd

from models.cascade.calibration import fit_calibration
from models.cascade.offline import rerank
from models.contracts.tiers import LEAN
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run, mean_values
from models.settings import TiersSettings

MIN_QUERIES = 20
"""Development queries with a relevant candidate below which nothing is said of the models."""


def cross_fitted_gain(scored: pd.DataFrame, judgments: pd.DataFrame, settings: TiersSettings) -> float | None:
    """Mean nDCG@10 of the tiers, without windows, minus that of `lean`; None where there are too few queries.

    `scored` are the candidates of the development queries with the logits of all models. Scores are fitted on one half
    of the queries and judged on the other, and the other way round.
    """
    relevant = judgments.loc[judgments["grade"] > 0, ["query_id", "document_id"]]
    queries = sorted(scored.merge(relevant, on=["query_id", "document_id"])["query_id"].unique().tolist())
    if len(queries) < MIN_QUERIES:
        return None
    halves = [set(queries[::2]), set(queries[1::2])]
    sums = {LEAN.name: 0.0, "tiered": 0.0}
    for fitted_on, judged_on in (halves, halves[::-1]):
        known, asked = (scored[scored["query_id"].isin(half)] for half in (fitted_on, judged_on))
        calibration = fit_calibration(known, judgments)
        rankings = rerank(asked, calibration, settings)
        judged = judgments[judgments["query_id"].isin(judged_on)]
        for name in sums:
            values = evaluate_run(collapse_to_documents(rankings[name]), judged, [MAIN_MEASURE])
            sums[name] += len(judged_on) * mean_values(values)[MAIN_MEASURE]
    return (sums["tiered"] - sums[LEAN.name]) / len(queries)
