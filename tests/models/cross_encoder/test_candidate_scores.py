"""Logits of all candidates, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.cross_encoder.candidate_scores import score_candidates
from models.cross_encoder.scorer import CrossEncoderScorer
from tests.small_bundle import Small


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
    lengths = Lengths()
    result = score_candidates(
        candidates, queries, passages, dict.fromkeys(("compact", "large"), lengths), lambda *now: told.append(now)
    )
    assert result.table["query_id"].tolist() == ["q2", "q1", "q1"]
    assert result.table["compact_logit"].tolist() == result.table["large_logit"].tolist() == [204.0, 106.0, 104.0]
    assert set(result.seconds_per_pair) == {"compact", "large"}
    assert told == [(3, 6), (6, 6)]


def test_no_candidates_give_an_empty_table() -> None:
    candidates = pd.DataFrame({"query_id": pd.Series([], dtype="str"), "passage_id": pd.Series([], dtype="str")})
    queries = pd.DataFrame({"query_id": ["q1"], "text": ["x"]})
    passages = pd.DataFrame({"passage_id": ["a"], "title": [""], "text": ["text"]})
    lengths = Lengths()
    result = score_candidates(candidates, queries, passages, {"compact": lengths, "large": lengths})
    assert len(result.table) == 0
    assert result.seconds_per_pair == {"compact": pytest.approx(0, abs=1), "large": pytest.approx(0, abs=1)}


def test_real_models_score_a_table_as_they_score_pairs(small: Small) -> None:
    scorer = CrossEncoderScorer.load(small.first.compact.folder, 64)
    candidates = small.artifacts["index/candidates"].read_table("candidates.parquet")
    queries = small.artifacts["corpus/evaluation_set"].read_table("queries.parquet").tail(2)
    passages = small.artifacts["corpus/passages"].read_table("passages.parquet")
    result = score_candidates(candidates, queries, passages, {"compact": scorer, "large": scorer}).table
    assert len(result) == 16
    text = dict(zip(queries["query_id"], queries["text"], strict=True))
    body = passages.set_index("passage_id")
    row = result.iloc[-1]
    passage = body.loc[row["passage_id"]]
    alone = scorer.logits([(text[row["query_id"]], f"{passage['title']}\n{passage['text']}")])
    assert row["large_logit"] == row["compact_logit"] == pytest.approx(float(alone[0]), abs=1e-4)
