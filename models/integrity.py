"""What must hold between tables: references resolve, and nothing that is evaluated was trained on."""

from __future__ import annotations

import pandas as pd

from models.splits import normalize_query


def unresolved_references(judgments: pd.DataFrame, queries: pd.DataFrame, passages: pd.DataFrame) -> pd.DataFrame:
    """Judgments that name a query or a document that does not exist, rows (`query_id`, `document_id`, `missing`)."""
    no_query = ~judgments["query_id"].isin(queries["query_id"])
    no_document = ~judgments["document_id"].isin(passages["document_id"])
    missing = [
        " and ".join(name for name, absent in (("query", query), ("document", document)) if absent)
        for query, document in zip(no_query, no_document, strict=True)
    ]
    found = judgments[["query_id", "document_id"]].assign(missing=missing)
    return found.loc[no_query | no_document].reset_index(drop=True)


def evaluated_in_training(examples: pd.DataFrame, evaluation_queries: pd.DataFrame) -> pd.DataFrame:
    """Training queries that are evaluated too, one row (`query_id`, `evaluation_query_id`, `kind`) for each.

    Kind `same_id`, or `same_text` where the normalized texts agree (`models.splits.normalize_query`).
    """
    ids = set(evaluation_queries["query_id"])
    by_text = {
        normalize_query(text): query_id
        for query_id, text in zip(evaluation_queries["query_id"], evaluation_queries["text"], strict=True)
    }
    rows = []
    for query_id, text in examples[["query_id", "query"]].drop_duplicates().itertuples(index=False):
        if query_id in ids:
            rows.append((query_id, query_id, "same_id"))
        elif (other := by_text.get(normalize_query(text))) is not None:
            rows.append((query_id, other, "same_text"))
    return pd.DataFrame(rows, columns=["query_id", "evaluation_query_id", "kind"])
