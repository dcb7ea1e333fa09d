# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""Offline scoring: both cross-encoders over the candidates of the evaluation queries, and the rankings they give."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from models.calibration import Calibration, candidate_inputs
from models.encoder import passage_text
from models.settings import TiersSettings
from models.stopping import Stopping, best_rows, contenders
from models.tiered_reranker import cascade


class PairScorer(Protocol):
    """A cross-encoder's engine; `models.engines` has them."""

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """float32 [n] logits of pairs."""
        ...


RANKING_COLUMNS = ["query_id", "passage_id", "document_id", "rank", "score"]


@dataclass(frozen=True)
class ScoredCandidates:
    """Candidates with `compact_logit` and `large_logit`, and the seconds that one pair took in each model."""

    table: pd.DataFrame
    seconds_per_pair: Mapping[str, float]


def score_candidates(
    candidates: pd.DataFrame,
    queries: pd.DataFrame,
    passages: pd.DataFrame,
    compact: PairScorer,
    large: PairScorer,
    progress: Callable[[int, int], None] | None = None,
) -> ScoredCandidates:
    """Score every candidate of `queries` with both models."""
    table = candidates[candidates["query_id"].isin(queries["query_id"])].reset_index(drop=True)
    pairs = candidate_pairs(table, queries, passages)
    columns: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for place, (name, scorer) in enumerate((("compact", compact), ("large", large))):

        def report(done: int, total: int, place: int = place) -> None:
            if progress is not None:
                progress(place * total + done, 2 * total)

        started = time.perf_counter()
        columns[f"{name}_logit"] = scorer.logits(pairs, progress=report).astype(np.float64)
        seconds[name] = (time.perf_counter() - started) / max(len(pairs), 1)
    return ScoredCandidates(table.assign(**columns), seconds)


def candidate_pairs(table: pd.DataFrame, queries: pd.DataFrame, passages: pd.DataFrame) -> list[tuple[str, str]]:
    """The texts (query, passage) of each row of a table of candidates."""
    text_of = dict(zip(queries["query_id"], queries["text"], strict=True))
    passage_of = dict(zip(passages["passage_id"], map(passage_text, passages["title"], passages["text"]), strict=True))
    return [
        (text_of[query_id], passage_of[passage_id])
        for query_id, passage_id in zip(table["query_id"], table["passage_id"], strict=True)
    ]


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


def seconds_per_query(
    scored: ScoredCandidates | Mapping[str, float],
    first_stage: Mapping[str, float],
    per_query: float,
    tiered: Mapping[str, float],
) -> dict[str, float]:
    """Seconds of each system per query, retrieval included, from the measured seconds of a pair.

    `per_query` is the mean number of candidates, `tiered` that of the pairs which the tiered system gives each model;
    `first_stage` has the seconds of `bm25`, `dense` and `hybrid`.
    """
    pair = scored.seconds_per_pair if isinstance(scored, ScoredCandidates) else scored
    base = first_stage["hybrid"]
    return {
        **first_stage,
        "lean": base,
        "compact": base + per_query * pair["compact"],
        "large": base + per_query * pair["large"],
        "tiered": base + sum(tiered[name] * pair[name] for name in tiered),
    }


def _sorted(rows: pd.DataFrame, logits: np.ndarray, ids: list[str]) -> pd.DataFrame:
    order = best_rows(logits, ids, len(ids))
    return rows.iloc[order].assign(rank=np.arange(1, len(order) + 1), score=logits[order])
