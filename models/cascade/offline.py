"""Rankings of scored candidates offline: each tier alone, and tiered as serving does without a deadline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.cascade.calibration import Calibration, candidate_inputs
from models.cascade.cascade import cascade
from models.cascade.windows import Stopping, best_rows, contenders
from models.settings import TiersSettings

RANKING_COLUMNS = ["query_id", "passage_id", "document_id", "rank", "score"]


def rerank(scored: pd.DataFrame, calibration: Calibration, tiers: TiersSettings) -> dict[str, pd.DataFrame]:
    """Rankings `lean`, `compact`, `large` and `tiered` of the scored candidates.

    The first three sort all candidates by one scorer; `tiered` is what serving does without a deadline. Columns as in
    `RANKING_COLUMNS`, `tiered` with `tier`, `dense_score` and `lexical_score` besides; `score` is the combined logit.
    """
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("lean", "compact", "large")}
    for _, rows in scored.groupby("query_id", sort=True):
        inputs = candidate_inputs(rows)
        ids = rows["passage_id"].tolist()
        for name in ("lean", "compact", "large"):
            parts[name].append(_sorted(rows, calibration.tiers[name].logits(inputs), ids))
    rankings = {name: pd.concat(tables, ignore_index=True)[RANKING_COLUMNS] for name, tables in parts.items()}
    return rankings | {"tiered": tiered_ranking(scored, calibration, tiers)}


def tiered_ranking(scored: pd.DataFrame, calibration: Calibration, tiers: TiersSettings) -> pd.DataFrame:
    """What serving makes of the scored candidates without a deadline: `RANKING_COLUMNS`, `tier`, `dense_score` and
    `lexical_score`."""
    tables, stopping = [], calibration.stopping
    for _, rows in scored.groupby("query_id", sort=True):
        inputs = candidate_inputs(rows)
        ids = rows["passage_id"].tolist()
        chosen = none = np.empty(0, dtype=np.int64)
        pool = np.arange(len(rows))
        if stopping.through_compact:
            lean = cascade(calibration, inputs, none, none).logits
            pool = chosen = contenders(lean, ids, tiers.compact_candidates, stopping.compact)
        before = cascade(calibration, inputs, chosen, none).logits[pool]
        best = pool[contenders(before, [ids[row] for row in pool], tiers.large_candidates, stopping.large)]
        final = cascade(calibration, inputs, chosen, best)
        tables.append(_sorted(rows.assign(tier=list(final.tiers)), final.logits, ids))
    return pd.concat(tables, ignore_index=True)[[*RANKING_COLUMNS, "tier", "dense_score", "lexical_score"]]


def pairs_per_query(tiered: pd.DataFrame, stopping: Stopping) -> dict[str, float]:
    """Mean pairs of a query that each model scored, from the tiers of a `tiered_ranking` made with `stopping`."""
    queries = max(tiered["query_id"].nunique(), 1)
    return {size: int(rows.sum()) / queries for size, rows in asked_of(tiered["tier"], stopping).items()}


def asked_of(tiers: pd.Series, stopping: Stopping) -> dict[str, pd.Series]:
    """For each model whether it scored the candidates of these tiers: the compact one those of the large one too."""
    large = tiers == "large"
    return {"compact": (tiers != "lean") if stopping.through_compact else tiers == "compact", "large": large}


def _sorted(rows: pd.DataFrame, logits: np.ndarray, ids: list[str]) -> pd.DataFrame:
    order = best_rows(logits, ids, len(ids))
    return rows.iloc[order].assign(rank=np.arange(1, len(order) + 1), score=logits[order])
