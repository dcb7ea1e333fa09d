"""Offline scoring: logits of all candidates, and the rankings that serving would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cascade.calibration import Calibration, TierScorer
from models.cascade.offline import RANKING_COLUMNS, pairs_per_query, rerank
from models.cascade.windows import Stopping
from models.cross_encoder.candidate_scores import score_candidates
from models.cross_encoder.scorer import CrossEncoderScorer
from models.evaluation.costs import seconds_per_query
from models.serving.batching import Batcher, CostModel
from models.serving.tiered_reranker import TieredReranker
from models.settings import TiersSettings
from tests.models.serving.test_tiered_reranker import Clock, Engine
from tests.small_bundle import Small


def weighing(**weights: float) -> TierScorer:
    names = tuple(weights)
    return TierScorer(names, (0.0,) * len(names), (1.0,) * len(names), tuple(weights.values()), 1.0, 0.0)


CALIBRATION = Calibration(
    {
        "lean": weighing(dense=1.0),
        "compact": weighing(dense=0.1, compact=1.0),
        "large": weighing(large=1.0),
        "cascade": weighing(compact=0.2, large=1.0),
    },
    1,
    {},
)


class Lengths:
    """Scores a pair by the lengths of its texts."""

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        if progress is not None:
            progress(len(pairs), len(pairs))
        return np.array([100 * len(query) + len(passage) for query, passage in pairs], dtype=np.float32)


def test_every_candidate_of_the_queries_is_scored_with_its_title() -> None:
    candidates = pd.DataFrame(
        {"query_id": ["q2", "q1", "q1", "other"], "passage_id": ["a", "b", "a", "a"], "rank": [1, 2, 1, 1]}
    )
    queries = pd.DataFrame({"query_id": ["q1", "q2"], "text": ["x", "yy"]})
    passages = pd.DataFrame({"passage_id": ["a", "b"], "title": ["", "T"], "text": ["text", "text"]})
    told: list[tuple[int, int]] = []
    lengths: Any = Lengths()
    found = score_candidates(candidates, queries, passages, lengths, lengths, lambda done, of: told.append((done, of)))
    assert found.table["query_id"].tolist() == ["q2", "q1", "q1"]
    assert found.table["compact_logit"].tolist() == found.table["large_logit"].tolist() == [204.0, 106.0, 104.0]
    assert set(found.seconds_per_pair) == {"compact", "large"}
    assert told == [(3, 6), (6, 6)]


def test_no_candidates_give_an_empty_table() -> None:
    candidates = pd.DataFrame({"query_id": pd.Series([], dtype="str"), "passage_id": pd.Series([], dtype="str")})
    queries = pd.DataFrame({"query_id": ["q1"], "text": ["x"]})
    passages = pd.DataFrame({"passage_id": ["a"], "title": [""], "text": ["text"]})
    lengths: Any = Lengths()
    found = score_candidates(candidates, queries, passages, lengths, lengths)
    assert len(found.table) == 0
    assert found.seconds_per_pair == {"compact": pytest.approx(0, abs=1), "large": pytest.approx(0, abs=1)}


def table(values: Sequence[tuple[float, float, float]], query: str = "q") -> pd.DataFrame:
    """Scored candidates of one query, given as (dense, compact logit, large logit)."""
    return pd.DataFrame(
        [
            (query, f"p{place:02d}", f"d{place}", dense, 0.0, compact, large)
            for place, (dense, compact, large) in enumerate(values)
        ],
        columns=[
            "query_id",
            "passage_id",
            "document_id",
            "dense_score",
            "lexical_score",
            "compact_logit",
            "large_logit",
        ],
    )


def test_each_ranking_sorts_by_its_scorer_and_tiered_by_what_serving_knows() -> None:
    scored = table([(0.9, 1.0, 9.0), (0.8, 3.0, 1.0), (0.7, 2.0, 5.0), (0.1, 9.0, 99.0)])
    tiers = TiersSettings(compact_candidates=3, large_candidates=2)
    found = rerank(scored, CALIBRATION, tiers)
    order = {name: ranking["passage_id"].tolist() for name, ranking in found.items()}
    assert order["lean"] == ["p00", "p01", "p02", "p03"]
    assert order["compact"] == ["p03", "p01", "p02", "p00"]
    assert order["large"] == ["p03", "p00", "p02", "p01"]
    assert order["tiered"] == ["p02", "p01", "p00", "p03"]
    tiered = found["tiered"]
    assert tiered["tier"].tolist() == ["large", "large", "compact", "lean"]
    assert tiered["score"].tolist() == pytest.approx([5.4, 1.6, 1.09, 0.1])
    assert list(found["lean"].columns) == RANKING_COLUMNS
    assert list(tiered.columns) == [*RANKING_COLUMNS, "tier", "dense_score", "lexical_score"]
    for ranking in found.values():
        assert ranking["rank"].tolist() == [1, 2, 3, 4]


def test_queries_are_ranked_apart_and_ties_by_id() -> None:
    scored = pd.concat([table([(0.5, 1.0, 1.0)] * 3, "q2"), table([(0.5, 1.0, 1.0), (0.6, 1.0, 1.0)], "q1")])
    found = rerank(scored, CALIBRATION, TiersSettings())["lean"]
    assert list(zip(found["query_id"], found["passage_id"], found["rank"], strict=True)) == [
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
    stopping=st.builds(Stopping, st.floats(0, 6), st.floats(0, 6), st.booleans()),
)
def test_tiered_is_what_serving_does_without_a_deadline(
    values: list[tuple[float, float, float]], compact: int, large: int, stopping: Stopping
) -> None:
    scored = table(values)
    # The scorer of both logits is of bundles from before the compact model could be left out.
    scorers = {name: one for name, one in CALIBRATION.tiers.items() if stopping.through_compact or name != "cascade"}
    calibration = replace(CALIBRATION, tiers=scorers, stopping=stopping)
    tiers = TiersSettings(compact_candidates=compact, large_candidates=large, reserve_ms=1, budget_ms=1e9)
    offline = rerank(scored, calibration, tiers)["tiered"]
    clock = Clock()

    class Known(Engine):
        def __init__(self, column: int) -> None:
            super().__init__(clock)
            self.column = column

        def logits_of(self, encoded: Sequence[Any], batch_size: int = 32) -> Any:
            return np.array([values[int(one.text)][self.column] for one in encoded])

    costs = {"compact": CostModel(0.0), "large": CostModel(0.0)}
    batcher = Batcher({"compact": Known(1), "large": Known(2)}, costs, batch_tokens=30, clock=clock)
    online = TieredReranker(batcher, calibration, tiers).rank(
        "q",
        [str(place) for place in range(len(values))],
        scored["passage_id"].tolist(),
        scored["dense_score"].to_numpy(),
        scored["lexical_score"].to_numpy(),
        1e9,
        scored["passage_id"].tolist(),
    )
    batcher.close()
    assert [item.passage_id for item in online.items] == offline["passage_id"].tolist()
    assert [item.tier for item in online.items] == offline["tier"].tolist()
    assert [item.logit for item in online.items] == pytest.approx(offline["score"].tolist())


def test_times_add_up_from_the_seconds_of_a_pair() -> None:
    first = {"bm25": 0.001, "dense": 0.004, "hybrid": 0.006}
    pair = {"compact": 0.01, "large": 0.03}
    tiered = {"compact": 10.0, "large": 5.0}
    found = seconds_per_query(pair, first, 20.0, tiered)
    assert found == pytest.approx(
        {**first, "lean": 0.006, "compact": 0.206, "large": 0.606, "tiered": 0.006 + 0.1 + 0.15}
    )


def test_pairs_are_counted_from_the_tiers() -> None:
    tiered = pd.DataFrame({"query_id": list("aaab"), "tier": ["large", "compact", "lean", "lean"]})
    assert pairs_per_query(tiered, Stopping()) == {"compact": 1.0, "large": 0.5}
    assert pairs_per_query(tiered, Stopping(through_compact=False)) == {"compact": 0.5, "large": 0.5}
    assert pairs_per_query(tiered.head(0), Stopping()) == {"compact": 0.0, "large": 0.0}


def test_real_models_score_a_table_as_they_score_pairs(small: Small) -> None:
    scorer = CrossEncoderScorer.load(small.first.compact.folder, 64)
    candidates = small.artifacts["index/candidates"].read_table("candidates.parquet")
    queries = small.artifacts["corpus/evaluation_set"].read_table("queries.parquet").tail(2)
    passages = small.artifacts["corpus/passages"].read_table("passages.parquet")
    found = score_candidates(candidates, queries, passages, scorer, scorer).table
    assert len(found) == 16
    text = dict(zip(queries["query_id"], queries["text"], strict=True))
    body = passages.set_index("passage_id")
    row = found.iloc[-1]
    passage = body.loc[row["passage_id"]]
    alone = scorer.logits([(text[row["query_id"]], f"{passage['title']}\n{passage['text']}")])
    assert row["large_logit"] == row["compact_logit"] == pytest.approx(float(alone[0]), abs=1e-4)
