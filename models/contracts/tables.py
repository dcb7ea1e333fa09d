"""Data contracts of tables: pandera schemas, and the rules in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors
from pandera.typing import Series

from models.contracts.messages import PROBE_CALLER
from models.contracts.rows import GIVEN, PSEUDO_KINDS, SPLITS, Rule
from models.errors import ContractError

ID_PATTERN = r"^\S(?:.{0,510}\S)?\Z"
TEXT_PATTERN = r"\s*\S"
_MAX_SHOWN = 20
RULES: Mapping[Rule, str] = {
    "malformed": "It cannot be parsed: no JSON, no CSV, no object, or no file of its kind.",
    "encoding": "Its text is not UTF-8, or not valid Unicode.",
    "too_long": "A line, file, text, title, label or number is longer than is taken.",
    "columns": "It lacks a column, or has more or fewer fields than the table.",
    "missing": "A value that is required is not there or empty.",
    "wrong_type": "A value is not of the type of its column.",
    "out_of_range": "A value is of the right type, and none of those that are allowed.",
    "control_character": "Its text holds a NUL character.",
    "bad_id": "An id is longer than is taken, spans lines, or has space at its ends.",
    "duplicate_id": "Its id is taken by an earlier row; the first one is kept.",
    "unknown_reference": "A judgment names a query or document that is not in the corpus.",
    "leakage": "A well-formed row that is kept out because it would leak between splits; no fault of the source.",
    "unreadable": "A file cannot be opened, is no regular file, or is a link that leads out of the folder.",
}
"""What a quarantined row broke."""


# pandera does not annotate its decorators.
_Decorator = Callable[..., Callable[[Any], Any]]
_check = cast("_Decorator", pa.check)  # pyright: ignore[reportUnknownMemberType]
_dataframe_check = cast("_Decorator", pa.dataframe_check)  # pyright: ignore[reportUnknownMemberType]


def _are_labels(labels: Iterable[object]) -> bool:
    return not isinstance(labels, str) and all(isinstance(label, str) for label in labels)


class _Table(pa.DataFrameModel):
    class Config:  # pyright: ignore[reportIncompatibleVariableOverride] - a class, as pandera asks
        strict = True
        coerce = False
        ordered = False


class Passages(_Table):
    """One row per passage: a piece of a document, with its place in it."""

    passage_id: Series[str] = pa.Field(
        str_matches=ID_PATTERN, unique=True, description="Stable id: document id and piece number."
    )
    document_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Document that the passage was cut from.")
    title: Series[str] = pa.Field(nullable=False, description="Title of the document; may be empty.")
    text: Series[str] = pa.Field(str_length={"min_value": 1}, description="Text of the passage, never empty.")
    start: Series[int] = pa.Field(
        ge=0, description="Offset of the first character in the document's text.", metadata={"unit": "characters"}
    )
    end: Series[int] = pa.Field(
        gt=0, description="Offset behind the last character in the document's text.", metadata={"unit": "characters"}
    )
    source: Series[str] = pa.Field(description="Package, file or data set that it came from.")
    access: Series[object] = pa.Field(description="Labels of which a caller needs one; an empty list is public.")
    content_hash: Series[str] = pa.Field(str_matches=r"^[0-9a-f]{64}$", description="SHA-256 of title and text.")
    updated_at: Series[str] = pa.Field(nullable=True, description="ISO 8601 time of the last change, where known.")

    @_dataframe_check(name="end_after_start")
    @classmethod
    def _end_after_start(cls, table: Any) -> Any:
        return table["end"] > table["start"]

    @_check("access", name="access_is_a_list_of_labels")
    @classmethod
    def _labels(cls, column: Any) -> Any:
        return column.map(_are_labels)


class Queries(_Table):
    """One row per query, with the split it belongs to for good."""

    query_id: Series[str] = pa.Field(str_matches=ID_PATTERN, unique=True, description="Stable id.")
    text: Series[str] = pa.Field(
        str_matches=TEXT_PATTERN, description="The question, with at least one visible character."
    )
    split: Series[str] = pa.Field(isin=SPLITS, description="train, dev or test.")
    kind: Series[str] | None = pa.Field(
        isin=(GIVEN, *PSEUDO_KINDS),
        description="given, or the part of the text that it was made from; no column where no query was made.",
    )


class Judgments(_Table):
    """One row per judged (query, document) pair (qrels)."""

    query_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Query.")
    document_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Document.")
    grade: Series[int] = pa.Field(
        ge=0, le=100, description="0 not relevant; higher is more relevant.", metadata={"unit": "grade"}
    )

    class Config(_Table.Config):
        unique = ["query_id", "document_id"]


class QuarantinedRows(_Table):
    """One row per input row that was refused, with the reason."""

    table: Series[str] = pa.Field(
        isin=("documents", "queries", "judgments"), description="Table that it was meant for."
    )
    reason: Series[str] = pa.Field(str_length={"min_value": 1}, description="What is wrong with it.")
    position: Series[str] = pa.Field(
        str_length={"min_value": 1}, description="Where it stands in the source, as in corpus.jsonl:17."
    )
    row: Series[str] = pa.Field(description="The row itself, as JSON where it has columns; at most 10,000 characters.")
    rule: Series[str] = pa.Field(isin=tuple(RULES), description="What it broke.")
    digest: Series[str] = pa.Field(
        str_matches=r"^[0-9a-f]{24}$", description="Digest of all of it, by which a correction knows it again."
    )


class AppliedCorrections(_Table):
    """One row per correction of a quarantined row in force when the source was read, with what became of it."""

    correction_id: Series[str] = pa.Field(str_matches=ID_PATTERN, unique=True, description="Id of the correction.")
    table: Series[str] = pa.Field(isin=("documents", "queries", "judgments"), description="Table of the row.")
    position: Series[str] = pa.Field(description="Where the row stood that it corrects.")
    state: Series[str] = pa.Field(
        isin=("applied", "moved", "lapsed"), description="lapsed: the source has another row there, which was read."
    )
    message: Series[str] = pa.Field(str_length={"min_value": 1}, description="The same in words.")


class Candidates(_Table):
    """One row per retrieved passage of a query, with the first-stage scores."""

    query_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Query.")
    passage_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Passage.")
    document_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Its document.")
    rank: Series[int] = pa.Field(ge=1, description="Rank in the fused list, from 1.", metadata={"unit": "places"})
    retriever_score: Series[float] = pa.Field(
        description="Score of the fused list, higher is better.", metadata={"unit": "fused score"}
    )
    dense_score: Series[float] = pa.Field(
        ge=-1.001, le=1.001, description="Cosine similarity of the embeddings.", metadata={"unit": "cosine"}
    )
    lexical_score: Series[float] = pa.Field(ge=0, description="BM25 score.", metadata={"unit": "BM25"})

    class Config(_Table.Config):
        unique = ["query_id", "passage_id"]


class TrainingCandidates(Candidates):
    """One row per retrieved passage of a training query, with its ranks in the searches that were fused."""

    dense_rank: Series[int] = pa.Field(
        ge=0, description="Rank in the vector search, from 1; 0 where it was missed.", metadata={"unit": "places"}
    )
    lexical_rank: Series[int] = pa.Field(
        ge=0, description="Rank in the word search, from 1; 0 where it was missed.", metadata={"unit": "places"}
    )


class TrainingExamples(_Table):
    """One row per (query, passage) pair for training; the pairs of one query form a list."""

    query_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Training query.")
    query: Series[str] = pa.Field(str_matches=TEXT_PATTERN, description="Its text.")
    passage_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Passage.")
    passage: Series[str] = pa.Field(str_length={"min_value": 1}, description="Title and text as the model reads them.")
    label: Series[float] = pa.Field(
        ge=0, le=1, description="Grade divided by the highest grade; 0 for negatives.", metadata={"unit": "share"}
    )
    kind: Series[str] = pa.Field(
        isin=("positive", "graded", "hard", "random"),
        description="positive begins a list; graded is of a lower grade; hard and random are negatives.",
    )
    dense_score: Series[float] = pa.Field(
        ge=-1.001,
        le=1.001,
        nullable=True,
        description="Cosine similarity of the embeddings; missing for random.",
        metadata={"unit": "cosine"},
    )
    lexical_score: Series[float] = pa.Field(
        ge=0, nullable=True, description="BM25 score; missing for random.", metadata={"unit": "BM25"}
    )


class LoggedLists(_Table):
    """One row per passage that a logged decision ranked; those of one decision form a list without judgments."""

    query_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Id of the decision.")
    query: Series[str] = pa.Field(str_matches=TEXT_PATTERN, description="What was asked.")
    passage_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Passage.")
    passage: Series[str] = pa.Field(str_length={"min_value": 1}, description="Title and text as the model reads them.")

    class Config(_Table.Config):
        unique = ["query_id", "passage_id"]


class ExcludedQueries(_Table):
    """One row per training or logged query that was left out because it nearly repeats an evaluation query."""

    query_id: Series[str] = pa.Field(
        str_matches=ID_PATTERN, unique=True, description="Query, or decision, that was left out."
    )
    text: Series[str] = pa.Field(str_matches=TEXT_PATTERN, description="Its text.")
    reason: Series[str] = pa.Field(
        isin=("same_id", "same_text", "same_words", "same_meaning"), description="What it shares with the other."
    )
    evaluation_query_id: Series[str] = pa.Field(str_matches=ID_PATTERN, description="Evaluation query that it repeats.")
    evaluation_text: Series[str] = pa.Field(str_matches=TEXT_PATTERN, description="Text of that query.")
    overlap: Series[float] = pa.Field(
        ge=0, le=1, description="Jaccard coefficient of the content words.", metadata={"unit": "share"}
    )
    cosine: Series[float] = pa.Field(
        ge=-1.001, le=1.001, description="Cosine similarity of the embeddings.", metadata={"unit": "cosine"}
    )


class DecisionLog(_Table):
    """One row per answered request of one UTC day; `GET /v1/decisions/{decision_id}` has the whole record.

    The numbers are the features that drift is judged on (`models.monitoring.drift.FEATURES`), missing where they are
    unknown: a request without a ranking has no scores, and texts of the caller's own have no first-stage scores.
    """

    decision_id: Series[str] = pa.Field(str_matches=ID_PATTERN, unique=True, description="Id of the decision.")
    trace_id: Series[str] = pa.Field(description="Trace of the request.")
    time: Series[pd.DatetimeTZDtype] = pa.Field(
        dtype_kwargs={"unit": "us", "tz": "UTC"}, description="When it was answered, UTC."
    )
    endpoint: Series[str] = pa.Field(str_startswith="/", description="Path that was called.")
    caller: Series[str] = pa.Field(ne=PROBE_CALLER, description="Who called, as a digest of the key; never a probe.")
    experiment_arm: Series[str] = pa.Field(description="Arm of the experiment; champion outside of one.")
    release_id: Series[str] = pa.Field(description="Release that answered.")
    model_version: Series[str] = pa.Field(description="Its MLflow version.")
    index_version: Series[str] = pa.Field(description="Its index.")
    corpus_version: Series[str] = pa.Field(description="Its corpus.")
    degraded: Series[bool] = pa.Field(description="Whether the budget or a fault cost quality.")
    degraded_reason: Series[str] = pa.Field(description="Why; empty otherwise.")
    answered: Series[bool] = pa.Field(description="Whether a text was given, beside the ranking.")
    citations: Series[int] = pa.Field(ge=0, description="Quotes in that text.", metadata={"unit": "quotes"})
    passages: Series[int] = pa.Field(ge=0, description="Ranked texts.", metadata={"unit": "texts"})
    query: Series[str] = pa.Field(description="The question.")
    query_characters: Series[int] = pa.Field(
        ge=0, description="Its length in characters.", metadata={"unit": "characters"}
    )
    query_words: Series[int] = pa.Field(ge=0, description="Its length in words.", metadata={"unit": "words"})
    top_score: Series[float] = pa.Field(
        ge=0, le=1, nullable=True, description="Best calibrated score.", metadata={"unit": "probability"}
    )
    mean_top10_score: Series[float] = pa.Field(
        ge=0, le=1, nullable=True, description="Mean of the best ten.", metadata={"unit": "probability"}
    )
    score_gap: Series[float] = pa.Field(
        ge=0, le=1, nullable=True, description="Best minus second score.", metadata={"unit": "probability"}
    )
    top_dense_score: Series[float] = pa.Field(
        ge=-1.001, le=1.001, nullable=True, description="Highest cosine.", metadata={"unit": "cosine"}
    )
    top_lexical_score: Series[float] = pa.Field(
        ge=0, nullable=True, description="Highest BM25 score.", metadata={"unit": "BM25"}
    )
    share_scored_by_large: Series[float] = pa.Field(
        ge=0, le=1, nullable=True, description="Share, large tier.", metadata={"unit": "share"}
    )
    latency_ms: Series[float] = pa.Field(
        ge=0, nullable=True, description="Milliseconds in the service.", metadata={"unit": "milliseconds"}
    )

    @_dataframe_check(name="one_day")
    @classmethod
    def _one_day(cls, table: Any) -> Any:
        days = table["time"].dt.floor("D")
        return days == days.min()


TABLES: dict[str, type[_Table]] = {
    "passages.parquet": Passages,
    "queries.parquet": Queries,
    "judgments.parquet": Judgments,
    "quarantined_rows.parquet": QuarantinedRows,
    "corrections.parquet": AppliedCorrections,
    "candidates.parquet": Candidates,
    "training_candidates.parquet": TrainingCandidates,
    "training_examples.parquet": TrainingExamples,
    "development_lists.parquet": TrainingExamples,
    "logged_lists.parquet": LoggedLists,
    "excluded_queries.parquet": ExcludedQueries,
    "decision_log.parquet": DecisionLog,
}
"""Which contract a file of an artifact answers to."""


class ColumnFacts(NamedTuple):
    """What a contract says of a column."""

    name: str
    kind: str
    nullable: bool
    description: str


def columns_of(schema: type[_Table]) -> list[ColumnFacts]:
    """The columns of a table in order."""
    return [
        ColumnFacts(str(name), str(column.dtype).partition("[")[0], bool(column.nullable), column.description or "")
        for name, column in schema.to_schema().columns.items()
    ]


def violations(table: pd.DataFrame, schema: type[_Table]) -> pd.DataFrame:
    """Rows of (`column`, `check`, `failure_case`, `index`) that break `schema`; empty when the table holds it."""
    try:
        schema.validate(table, lazy=True)
    except SchemaErrors as error:
        cases = cast("pd.DataFrame", error.failure_cases)  # pyright: ignore[reportUnknownMemberType] - not annotated
        return cases[["column", "check", "failure_case", "index"]].reset_index(drop=True)
    return pd.DataFrame(columns=["column", "check", "failure_case", "index"])


def check_table(table: pd.DataFrame, schema: type[_Table], name: str) -> None:
    """Raise `ContractError` naming the first offending rows of a table that breaks its contract."""
    broken = violations(table, schema)
    if len(broken):
        shown = "\n".join(
            f"  row {row['index']}: {row['column']}: {row['check']} (got {str(row['failure_case'])[:80]!r})"
            for row in broken.head(_MAX_SHOWN).to_dict("records")
        )
        raise ContractError(f"{name} breaks its contract in {len(broken)} places:\n{shown}")
