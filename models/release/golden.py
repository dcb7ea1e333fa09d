"""Golden queries: their scores offline, and how far a loaded bundle is from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_GOLDEN_DEPTH = 10


@dataclass(frozen=True)
class GoldenQuery:
    """A query with the best passages that the offline evaluation gave it, and their logits.

    `labels` are what a caller must hold to find those passages: the evaluation has no access filter.
    """

    query_id: str
    query: str
    passage_ids: list[str]
    logits: list[float]
    labels: list[str]


def golden_queries(
    queries: pd.DataFrame, rankings: pd.DataFrame, passages: pd.DataFrame, count: int
) -> list[GoldenQuery]:
    """The first `count` test queries with the best ten passages that the offline evaluation gave them."""
    tiered = rankings[(rankings["system"] == "tiered") & (rankings["rank"] <= _GOLDEN_DEPTH)].sort_values("rank")
    test = queries[queries["split"] == "test"].sort_values("query_id").head(count)
    ranked = dict(iter(tiered.groupby("query_id")))
    access = dict(zip(passages["passage_id"], passages["access"], strict=True))
    return [
        GoldenQuery(
            query_id=query_id,
            query=text,
            passage_ids=ranked[query_id]["passage_id"].tolist(),
            logits=ranked[query_id]["score"].tolist(),
            labels=sorted({str(access[name][0]) for name in ranked[query_id]["passage_id"] if len(access[name])}),
        )
        for query_id, text in zip(test["query_id"], test["text"], strict=True)
        if query_id in ranked
    ]


@dataclass(frozen=True)
class GoldenComparison:
    """How far a loaded bundle is from its golden scores (probabilities), and whether it orders them alike."""

    queries: int
    max_difference: float
    order_equal: bool


def compare_golden(
    golden: Sequence[GoldenQuery], reproduced: Sequence[Mapping[str, float]], tolerance: float
) -> GoldenComparison:
    """Compare golden queries with `reproduced`, for each the calibrated scores by passage id of the reloaded bundle.

    A passage that is missing counts as a difference of 1, and as another order. Two passages may change places when
    their golden scores are closer than `tolerance`.
    """
    import numpy as np

    from models.cascade.calibration import probability

    largest, order_equal = 0.0, True
    for entry, scores in zip(golden, reproduced, strict=True):
        expected = probability(np.array(entry.logits, dtype=np.float64))
        present = np.array([passage_id in scores for passage_id in entry.passage_ids], dtype=bool)
        actual = np.array([scores.get(passage_id, 0.0) for passage_id in entry.passage_ids], dtype=np.float64)
        difference = np.where(present, np.abs(actual - expected), 1.0)
        largest = max(largest, float(difference.max(initial=0.0)))
        falls = np.diff(actual) > 0
        order_equal &= bool(present.all()) and not bool(np.any(falls & (-np.diff(expected) > tolerance)))
    return GoldenComparison(len(golden), largest, bool(order_equal and golden))
