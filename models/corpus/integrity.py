"""What must hold between tables: references resolve."""

from __future__ import annotations

import pandas as pd


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
