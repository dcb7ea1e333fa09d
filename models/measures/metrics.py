"""Retrieval measures per query, computed by trec_eval through ir_measures (MacAvaney et al., 2022).

Conventions of trec_eval: grade 1 and above is relevant, nDCG takes the grade itself as gain, a judged query without
results counts 0, and relevant documents that no system returned still count in the denominators. Ties are broken here,
by ascending document id, because trec_eval compares scores in single precision and breaks ties by descending id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.errors import ContractError, SettingsError

if TYPE_CHECKING:
    from ir_measures import Measure

MAIN_MEASURE = "nDCG@10"
MEASURES = ("nDCG@10", "MRR@10", "MAP", "P@1", "P@5", "P@10", "R@10", "R@50", "R@100")


def evaluate_run(run: pd.DataFrame, judgments: pd.DataFrame, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """Measure a run query by query.

    `run` has `query_id, document_id, score` (higher is better), `judgments` has `query_id, document_id, grade`. Returns
    `query_id, measure, value` with one row for each measure of each judged query that has a relevant document, ordered
    by query id and then as `measures`. Raises `ContractError` for duplicate pairs, scores that are not numbers, or
    judgments without a relevant document.
    """
    import ir_measures

    parsed = {name: _measure(name) for name in measures}
    qrels = _nested(_relevant_queries(judgments), "grade", int)
    results = _nested(_strictly_ordered(run), "score", float)
    known = {query_id: results[query_id] for query_id in qrels if query_id in results}
    evaluator = ir_measures.evaluator(list(parsed.values()), qrels)
    values = {(metric.query_id, metric.measure): metric.value for metric in evaluator.iter_calc(known)}
    rows = [
        (query_id, name, float(values[query_id, measure]))
        for query_id in sorted(qrels)
        for name, measure in parsed.items()
    ]
    return pd.DataFrame(rows, columns=["query_id", "measure", "value"])


def mean_values(per_query: pd.DataFrame) -> dict[str, float]:
    """Mean over queries of each measure of an `evaluate_run` table, in the table's order of measures."""
    values: dict[str, list[float]] = {}
    for name, value in zip(per_query["measure"].tolist(), per_query["value"].tolist(), strict=True):
        values.setdefault(name, []).append(value)
    return {name: math.fsum(of_measure) / len(of_measure) for name, of_measure in values.items()}


def collapse_to_documents(ranking: pd.DataFrame) -> pd.DataFrame:
    """Turn a ranking of passages into a run of documents, each at the rank of its best passage.

    This is MaxP (Dai & Callan, 2019, https://arxiv.org/abs/1905.09217). `ranking` has `query_id, passage_id,
    document_id, rank` (rank 1 is best; equal ranks are ordered by passage id). Returns `query_id, document_id, score`
    from best to worst; the scores of a query are whole numbers that fall from the number of its documents to 1: there
    are no ties.
    """
    _require(ranking, ("query_id", "passage_id", "document_id", "rank"), "ranking")
    if np.isnan(ranking["rank"].to_numpy(dtype=float)).any():
        raise ContractError("ranking: a rank is missing", "Every ranked passage needs its rank, from 1.")
    ordered = ranking.sort_values(["query_id", "rank", "passage_id"], kind="stable")
    return _with_falling_scores(ordered.drop_duplicates(["query_id", "document_id"]))


def _measure(name: str) -> Measure:
    """The measure of ir_measures by this name.

    Not `ir_measures.parse_measure`, which needs `ast.Num` up to 0.4.3: Python 3.14 has none
    (https://github.com/terrierteam/ir_measures/issues/80).
    """
    import ir_measures

    family, at, cutoff = name.partition("@")
    try:
        measure = ir_measures.measures.registry[family]
        if at:
            measure = measure @ _positive(cutoff)
        measure.validate_params()
    except (KeyError, ValueError, AssertionError) as error:
        raise SettingsError(f"{name}: no such measure", "Use P@k, R@k, nDCG@k, MRR@k or MAP, as in nDCG@10.") from error
    return measure


def _positive(number: str) -> int:
    if int(number) < 1:
        raise ValueError(number)
    return int(number)


def _relevant_queries(judgments: pd.DataFrame) -> pd.DataFrame:
    _require(judgments, ("query_id", "document_id", "grade"), "judgments")
    _refuse_duplicates(judgments, "judgments")
    positive = set(judgments["query_id"].to_numpy()[judgments["grade"].to_numpy() > 0])
    if not positive:
        raise ContractError(
            "judgments: no query has a relevant document",
            "Check that the judgments of this split were read, with grades above 0.",
        )
    return judgments.loc[judgments["query_id"].isin(sorted(positive))]


def _strictly_ordered(run: pd.DataFrame) -> pd.DataFrame:
    _require(run, ("query_id", "document_id", "score"), "run")
    _refuse_duplicates(run, "run")
    missing = np.isnan(run["score"].to_numpy(dtype=float))
    if missing.any():
        query_id = run["query_id"].to_numpy()[missing][0]
        raise ContractError(f"run: a score of query {query_id} is not a number", "Look at the model that produced it.")
    ordered = run.sort_values(["query_id", "score", "document_id"], ascending=[True, False, True], kind="stable")
    return _with_falling_scores(ordered)


def _with_falling_scores(ordered: pd.DataFrame) -> pd.DataFrame:
    position = ordered.groupby("query_id", sort=False).cumcount(ascending=False)
    columns = {name: ordered[name].array for name in ("query_id", "document_id")}
    return pd.DataFrame({**columns, "score": position.to_numpy(dtype=float) + 1})


def _nested(table: pd.DataFrame, column: str, kind: type) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for query_id, document_id, value in zip(
        table["query_id"].tolist(), table["document_id"].tolist(), table[column].tolist(), strict=True
    ):
        nested.setdefault(query_id, {})[document_id] = kind(value)
    return nested


def _refuse_duplicates(table: pd.DataFrame, name: str) -> None:
    repeated = table.duplicated(["query_id", "document_id"]).to_numpy()
    if repeated.any():
        query_id, document_id = (table[column].to_numpy()[repeated][0] for column in ("query_id", "document_id"))
        raise ContractError(
            f"{name}: document {document_id} appears twice for query {query_id}",
            "Keep one row per pair; collapse_to_documents does it for rankings of passages.",
        )


def _require(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ContractError(
            f"{name}: missing columns {', '.join(missing)}", f"It has {', '.join(map(str, table.columns))}."
        )
