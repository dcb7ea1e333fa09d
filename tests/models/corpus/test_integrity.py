"""Rules between tables, on frames small enough to read."""

from __future__ import annotations

import pandas as pd

from models.corpus.integrity import unresolved_references


def test_unresolved_references_say_what_is_missing() -> None:
    judgments = pd.DataFrame(
        {"query_id": ["a", "a", "x", "x"], "document_id": ["1", "9", "1", "9"], "grade": [1, 1, 1, 1]}
    )
    result = unresolved_references(
        judgments, pd.DataFrame({"query_id": ["a"]}), pd.DataFrame({"document_id": ["1", "1"]})
    )
    assert result.to_dict("records") == [
        {"query_id": "a", "document_id": "9", "missing": "document"},
        {"query_id": "x", "document_id": "1", "missing": "query"},
        {"query_id": "x", "document_id": "9", "missing": "query and document"},
    ]
