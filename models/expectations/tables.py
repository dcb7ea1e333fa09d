"""The tables as their expectation suites look at them, and the facts of a table that a later version is held against.

Language and near-duplicates are looked at on a sample, so that a million passages cost little more than a few thousand:
the columns are empty in the other rows, which expectations pass over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from models.corpus.splits import normalize_query, sample_by_hash
from models.errors import ContractError
from models.store.artifacts import Artifact
from models.text.language import languages
from models.text.near_duplicates import alike_sample, near_duplicate_of
from models.text.words import count_words

SUITE_OF = {
    "corpus/passages": "passages",
    "corpus/queries": "queries",
    "corpus/judgments": "judgments",
    "corpus/evaluation_set": "evaluation_set",
}
"""Assets that have a suite, and its name."""

_LANGUAGE_SAMPLE = 1000
_DUPLICATES_SAMPLE = 5000
_FEW = 0.01
"""A language of fewer rows than this share is chance."""
_MANY = 0.3
"""A language of at least this share is a main one."""


def table_of(asset: str, artifacts: Mapping[str, Artifact]) -> pd.DataFrame:
    """The table that the suite of `asset` looks at, from its artifact and those of the tables it refers to."""
    artifact = artifacts[asset]
    if asset == "corpus/passages":
        return passage_table(artifact.read_table("passages.parquet"))
    if asset == "corpus/evaluation_set":
        return evaluation_table(artifact.read_table("queries.parquet"), artifact.read_table("judgments.parquet"))
    queries = artifacts["corpus/queries"].read_table("queries.parquet")
    judgments = artifacts["corpus/judgments"].read_table("judgments.parquet")
    documents = artifacts["corpus/passages"].read_table("passages.parquet", ["document_id"])["document_id"]
    if asset == "corpus/queries":
        return query_table(queries, judgments, documents)
    if asset == "corpus/judgments":
        return judgment_table(judgments, queries, documents)
    raise ContractError(f"{asset} has no expectation suite", f"Those that have one: {', '.join(SUITE_OF)}.")


def passage_table(passages: pd.DataFrame) -> pd.DataFrame:
    """The passages without `access`, with columns that their suite looks at.

    `span_minus_text` (characters; 0 is right), `characters`, and on samples `language` and `near_duplicate_of` (the id
    of a passage with nearly the same text, or empty).
    """
    table = passages.drop(columns="access").reset_index(drop=True)
    spans = table["end"] - table["start"]
    texts = table["text"].tolist()
    sampled = alike_sample(texts, _DUPLICATES_SAMPLE)
    others = near_duplicate_of([texts[row] for row in sampled])
    ids = table["passage_id"].tolist()
    duplicate_of = {
        row: "" if other is None else ids[sampled[other]] for row, other in zip(sampled, others, strict=True)
    }
    return table.assign(
        span_minus_text=spans - table["text"].str.len(),
        characters=table["text"].str.len(),
        language=_languages(table.rename(columns={"passage_id": "query_id"})[["query_id", "text"]]),
        near_duplicate_of=_column(duplicate_of, len(table)),
    )


def query_table(queries: pd.DataFrame, judgments: pd.DataFrame, documents: pd.Series) -> pd.DataFrame:
    """One row per query: `query_id`, `split`, `normalized_text`, `words`, `relevant_documents`, `language` (sample).

    `relevant_documents` counts those with a grade above 0 that are in the corpus.
    """
    queries = queries.reset_index(drop=True)
    relevant = judgments[(judgments["grade"] > 0) & judgments["document_id"].isin(documents)].groupby("query_id").size()
    return queries[["query_id", "split"]].assign(
        normalized_text=[normalize_query(text) for text in queries["text"]],
        words=[count_words(text) for text in queries["text"]],
        relevant_documents=queries["query_id"].map(relevant).fillna(0).astype("int64"),
        language=_languages(queries),
    )


def judgment_table(judgments: pd.DataFrame, queries: pd.DataFrame, documents: pd.Series) -> pd.DataFrame:
    """The judgments with 0 or 1 for `relevant` (a grade above 0), `document_exists` and `query_exists`."""
    return judgments.assign(
        relevant=(judgments["grade"] > 0).astype("int64"),
        document_exists=judgments["document_id"].isin(documents).astype("int64"),
        query_exists=judgments["query_id"].isin(queries["query_id"]).astype("int64"),
    )


def evaluation_table(queries: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    """One row per evaluation query with what its suite looks at.

    Columns: `query_id`, `split`, `normalized_text`, `words`, `positives` (judgments with a grade above 0),
    `lowest_grade` and `highest_grade` (0 without judgments), `near_duplicate_of` (the id of another one, or empty).
    """
    grades = judgments.groupby("query_id")["grade"]
    judged = pd.DataFrame(
        {
            "positives": judgments[judgments["grade"] > 0].groupby("query_id").size(),
            "lowest_grade": grades.min(),
            "highest_grade": grades.max(),
        }
    )
    ids = queries["query_id"].tolist()
    others = near_duplicate_of(queries["text"].tolist(), shingle=1)
    table = queries[["query_id", "split"]].assign(
        normalized_text=[" ".join(text.casefold().split()) for text in queries["text"]],
        words=[count_words(text) for text in queries["text"]],
        near_duplicate_of=pd.Series(["" if row is None else ids[row] for row in others], index=queries.index),
    )
    joined = table.merge(judged, how="left", left_on="query_id", right_index=True)
    numbers = ["positives", "lowest_grade", "highest_grade"]
    return joined.assign(**{name: joined[name].fillna(0).astype("int64") for name in numbers})


def facts_of(asset: str, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """`facts` of the table that the suite of `asset` is about."""
    return facts(table_of(asset, artifacts))


def facts(table: pd.DataFrame) -> dict[str, Any]:
    """What a later version of a table is held against, by the names of the suites' parameters.

    `accepted_rows`, `accepted_mean_<column>` of each column of numbers and, with a column `language`,
    `accepted_languages` (those of at least 1 % of the sampled rows) and `accepted_main_languages` (30 %).
    """
    numbers = table.select_dtypes("number")
    accepted: dict[str, Any] = {"accepted_rows": len(table)}
    accepted |= {f"accepted_mean_{name}": float(numbers[name].mean()) for name in numbers if len(table)}
    if "language" in table:
        shares = table["language"].value_counts(normalize=True)
        accepted["accepted_languages"] = sorted(map(str, shares[shares >= _FEW].index))
        accepted["accepted_main_languages"] = sorted(map(str, shares[shares >= min(_MANY, shares.max())].index))
    return accepted


def _languages(texts: pd.DataFrame) -> pd.Series:
    """Languages of a stable sample of the rows (`query_id`, `text`), in their order; missing in the others."""
    rows = sample_by_hash(texts.reset_index(drop=True), _LANGUAGE_SAMPLE)
    return _column(dict(zip(rows.index, languages(rows["text"]), strict=True)), len(texts))


def _column(values: Mapping[Any, str], rows: int) -> pd.Series:
    return pd.Series([values.get(row) for row in range(rows)], dtype="str")
