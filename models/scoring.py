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
from models.tiered_reranker import best_rows, cascade


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
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("lean", "compact", "large", "tiered")}
    for _, rows in scored.groupby("query_id", sort=True):
        inputs = candidate_inputs(rows)
        ids = rows["passage_id"].tolist()
        for name in ("lean", "compact", "large"):
            parts[name].append(_sorted(rows, calibration.tiers[name].logits(inputs), ids))
        lean = calibration.tiers["lean"].logits(inputs)
        compact_rows = best_rows(lean, ids, tiers.compact_candidates)
        none = np.empty(0, dtype=np.int64)
        after = cascade(calibration, inputs, compact_rows, none).logits
        best = best_rows(after[compact_rows], [ids[row] for row in compact_rows], tiers.large_candidates)
        final = cascade(calibration, inputs, compact_rows, compact_rows[best])
        parts["tiered"].append(_sorted(rows.assign(tier=list(final.tiers)), final.logits, ids))
    extra = {"tiered": ["tier", "dense_score", "lexical_score"]}
    return {
        name: pd.concat(tables, ignore_index=True)[RANKING_COLUMNS + extra.get(name, [])]
        for name, tables in parts.items()
    }


def seconds_per_query(
    scored: ScoredCandidates | Mapping[str, float],
    first_stage: Mapping[str, float],
    per_query: float,
    tiers: TiersSettings,
) -> dict[str, float]:
    """Seconds of each system per query, retrieval included, from the measured seconds of a pair.

    `per_query` is the mean number of candidates; `first_stage` has the seconds of `bm25`, `dense` and `hybrid`.
    """
    pair = scored.seconds_per_pair if isinstance(scored, ScoredCandidates) else scored
    compact, large = min(tiers.compact_candidates, per_query), min(tiers.large_candidates, per_query)
    base = first_stage["hybrid"]
    return {
        **first_stage,
        "lean": base,
        "compact": base + per_query * pair["compact"],
        "large": base + per_query * pair["large"],
        "tiered": base + compact * pair["compact"] + large * pair["large"],
    }


def _sorted(rows: pd.DataFrame, logits: np.ndarray, ids: list[str]) -> pd.DataFrame:
    order = best_rows(logits, ids, len(ids))
    return rows.iloc[order].assign(rank=np.arange(1, len(order) + 1), score=logits[order])
