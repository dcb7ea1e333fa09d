"""Score candidates: the texts of each (query, candidate) pair and the logits of the cross-encoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from models.contracts.tiers import model_tiers
from models.text.passage_text import passage_text


class PairScorer(Protocol):
    """A cross-encoder's engine; `models.cross_encoder.engines` has them."""

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """float32 [n] logits of pairs."""
        ...


@dataclass(frozen=True)
class ScoredCandidates:
    """Candidates with each model's logits (`TierSpec.logit_column`), and the seconds of a pair in each, by tier."""

    table: pd.DataFrame
    seconds_per_pair: Mapping[str, float]


def score_candidates(
    candidates: pd.DataFrame,
    queries: pd.DataFrame,
    passages: pd.DataFrame,
    scorers: Mapping[str, PairScorer],
    progress: Callable[[int, int], None] | None = None,
) -> ScoredCandidates:
    """Score every candidate of `queries` with each model; `scorers` are these by tier."""
    table = candidates[candidates["query_id"].isin(queries["query_id"])].reset_index(drop=True)
    pairs = candidate_pairs(table, queries, passages)
    columns: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for number, tier in enumerate(model_tiers(scorers)):

        def report(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(scorers) * total)

        started = time.perf_counter()
        columns[tier.logit_column] = scorers[tier.name].logits(pairs, progress=report).astype(np.float64)
        seconds[tier.name] = (time.perf_counter() - started) / max(len(pairs), 1)
    return ScoredCandidates(table.assign(**columns), seconds)


def candidate_pairs(table: pd.DataFrame, queries: pd.DataFrame, passages: pd.DataFrame) -> list[tuple[str, str]]:
    """The texts (query, passage) of each row of a table of candidates."""
    text_of = dict(zip(queries["query_id"], queries["text"], strict=True))
    passage_of = dict(zip(passages["passage_id"], map(passage_text, passages["title"], passages["text"]), strict=True))
    return [
        (text_of[query_id], passage_of[passage_id])
        for query_id, passage_id in zip(table["query_id"], table["passage_id"], strict=True)
    ]
