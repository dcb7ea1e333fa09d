# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""Read the frozen evaluation set and the report of an evaluation on it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from models.evaluation.report import EvaluationReport
from models.store.artifacts import Artifact


def split_of(evaluation_set: Artifact, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries and judgments of one split of the evaluation set."""
    queries = evaluation_set.read_table("queries.parquet")
    queries = queries[queries["split"] == split]
    judgments = evaluation_set.read_table("judgments.parquet")
    return queries, judgments[judgments["query_id"].isin(queries["query_id"])]


def read_report(folder: Path) -> EvaluationReport:
    """The report that `evaluate_offline` wrote to `folder`, with its per-query table."""
    values = json.loads((folder / "report" / "evaluation.json").read_bytes())
    return EvaluationReport.from_dict(values, pd.read_parquet(folder / "per_query.parquet"))
