"""The rankings that serving would give, from tables of scored candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cascade.calibration import Calibration, TierScorer
from models.cascade.offline import RANKING_COLUMNS, pairs_per_query, rerank
from models.cascade.windows import EarlyExit
from models.serving.batching import Batcher, CostModel
from models.serving.tiered_reranker import TieredReranker
from models.settings import TiersSettings
from tests.models.serving.test_tiered_reranker import Clock, Engine


def weighing(**weights: float) -> TierScorer:
    names = tuple(weights)
    return TierScorer(names, (0.0,) * len(names), (1.0,) * len(names), tuple(weights.values()), 1.0, 0.0)


CALIBRATION = Calibration(
    {
        "lean": weighing(retriever=1.0),
        "compact": weighing(dense=0.1, compact=1.0),
        "large": weighing(dense=0.5, large=1.0),
    },
    1,
    {},
)


def table(values: Sequence[tuple[float, float, float]], query: str = "q") -> pd.DataFrame:
    """Scored candidates of one query, given as (dense and first-stage score, compact logit, large logit)."""
    return pd.DataFrame(
        [
            (query, f"p{index:02d}", f"d{index}", dense, 0.0, dense, compact, large)
            for index, (dense, compact, large) in enumerate(values)
        ],
        columns=[
            "query_id",
            "passage_id",
            "document_id",
            "dense_score",
            "lexical_score",
            "retriever_score",
            "compact_logit",
            "large_logit",
        ],
    )


def test_each_ranking_sorts_by_its_scorer_and_tiered_by_what_serving_knows() -> None:
    scored = table([(0.9, 1.0, 9.0), (0.8, 3.0, 1.0), (0.7, 2.0, 5.0), (0.1, 9.0, 99.0)])
    tiers = TiersSettings(compact_candidates=3, large_candidates=2)
    result = rerank(scored, CALIBRATION, tiers)
    order = {name: ranking["passage_id"].tolist() for name, ranking in result.items()}
    assert order["lean"] == ["p00", "p01", "p02", "p03"]
    assert order["compact"] == ["p03", "p01", "p02", "p00"]
    assert order["large"] == ["p03", "p00", "p02", "p01"]
    assert order["tiered"] == ["p02", "p01", "p00", "p03"]
    tiered = result["tiered"]
    assert tiered["tier"].tolist() == ["large", "large", "compact", "lean"]
    assert tiered["score"].tolist() == pytest.approx([5.35, 1.4, 1.09, 0.1])
    assert list(result["lean"].columns) == RANKING_COLUMNS
    assert list(tiered.columns) == [*RANKING_COLUMNS, "tier", "dense_score", "lexical_score"]
    for ranking in result.values():
        assert ranking["rank"].tolist() == [1, 2, 3, 4]


def test_queries_are_ranked_apart_and_ties_by_id() -> None:
    scored = pd.concat([table([(0.5, 1.0, 1.0)] * 3, "q2"), table([(0.5, 1.0, 1.0), (0.6, 1.0, 1.0)], "q1")])
    result = rerank(scored, CALIBRATION, TiersSettings(compact_candidates=20, large_candidates=20))["lean"]
    assert list(zip(result["query_id"], result["passage_id"], result["rank"], strict=True)) == [
        ("q1", "p01", 1),
        ("q1", "p00", 2),
        ("q2", "p00", 1),
        ("q2", "p01", 2),
        ("q2", "p02", 3),
    ]


@settings(deadline=None)
@given(
    values=st.lists(st.tuples(*[st.floats(-5, 5).map(lambda x: round(x, 3))] * 3), min_size=1, max_size=12),
    compact=st.integers(0, 12),
    large=st.integers(0, 12),
    early_exit=st.builds(
        EarlyExit,
        st.dictionaries(st.sampled_from(["compact", "large"]), st.floats(0, 6)),
        st.sampled_from([frozenset(), frozenset({"compact"})]),
    ),
)
def test_tiered_is_what_serving_does_without_a_deadline(
    values: list[tuple[float, float, float]], compact: int, large: int, early_exit: EarlyExit
) -> None:
    scored = table(values)
    calibration = replace(CALIBRATION, early_exit=early_exit)
    tiers = TiersSettings(compact_candidates=compact, large_candidates=large, reserve_ms=1, budget_ms=1e9)
    offline = rerank(scored, calibration, tiers)["tiered"]
    clock = Clock()

    class Known(Engine):
        def __init__(self, column: int) -> None:
            super().__init__(clock)
            self.column = column

        def logits_of(self, encoded: Sequence[Any], batch_size: int = 32) -> Any:
            return np.array([values[int(item.text)][self.column] for item in encoded])

    costs = {"compact": CostModel(0.0), "large": CostModel(0.0)}
    batcher = Batcher({"compact": Known(1), "large": Known(2)}, costs, batch_tokens=30, clock=clock)
    online = TieredReranker(batcher, calibration, tiers).rank(
        "q",
        [str(index) for index in range(len(values))],
        scored["passage_id"].tolist(),
        scored["dense_score"].to_numpy(),
        scored["lexical_score"].to_numpy(),
        scored["retriever_score"].to_numpy(),
        1e9,
        scored["passage_id"].tolist(),
    )
    batcher.close()
    assert [item.passage_id for item in online.items] == offline["passage_id"].tolist()
    assert [item.tier for item in online.items] == offline["tier"].tolist()
    assert [item.logit for item in online.items] == pytest.approx(offline["score"].tolist())


def test_pairs_are_counted_from_the_tiers() -> None:
    tiered = pd.DataFrame({"query_id": list("aaab"), "tier": ["large", "compact", "lean", "lean"]})
    assert pairs_per_query(tiered, EarlyExit()) == {"compact": 1.0, "large": 0.5}
    assert pairs_per_query(tiered, EarlyExit(skipped=frozenset({"compact"}))) == {"compact": 0.5, "large": 0.5}
    assert pairs_per_query(tiered.head(0), EarlyExit()) == {"compact": 0.0, "large": 0.0}
