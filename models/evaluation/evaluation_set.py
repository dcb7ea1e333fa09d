"""Read the frozen evaluation set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from models.store.artifacts import Artifact


def split_of(evaluation_set: Artifact, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries and judgments of one split of the evaluation set."""
    queries = evaluation_set.read_table("queries.parquet")
    queries = queries.loc[queries["split"] == split]
    judgments = evaluation_set.read_table("judgments.parquet")
    return queries, judgments.loc[judgments["query_id"].isin(queries["query_id"])]
