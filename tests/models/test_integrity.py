"""Rules between tables, on frames small enough to read."""

from __future__ import annotations

import pandas as pd

from models.integrity import evaluated_in_training, unresolved_references


def test_unresolved_references_say_what_is_missing() -> None:
    judgments = pd.DataFrame(
        {"query_id": ["a", "a", "x", "x"], "document_id": ["1", "9", "1", "9"], "grade": [1, 1, 1, 1]}
    )
    found = unresolved_references(
        judgments, pd.DataFrame({"query_id": ["a"]}), pd.DataFrame({"document_id": ["1", "1"]})
    )
    assert found.to_dict("records") == [
        {"query_id": "a", "document_id": "9", "missing": "document"},
        {"query_id": "x", "document_id": "1", "missing": "query"},
        {"query_id": "x", "document_id": "9", "missing": "query and document"},
    ]


def test_training_queries_are_found_by_id_and_by_normalized_text() -> None:
    examples = pd.DataFrame(
        {"query_id": ["t1", "t1", "t2", "e1"], "query": ["What is  NDCG?", "What is  NDCG?", "unrelated", "reworded"]}
    )
    evaluated = pd.DataFrame({"query_id": ["e1", "e2"], "text": ["first", "what is ndcg"]})
    assert evaluated_in_training(examples, evaluated).to_dict("records") == [
        {"query_id": "t1", "evaluation_query_id": "e2", "kind": "same_text"},
        {"query_id": "e1", "evaluation_query_id": "e1", "kind": "same_id"},
    ]
    assert evaluated_in_training(examples.iloc[2:3], evaluated).empty
