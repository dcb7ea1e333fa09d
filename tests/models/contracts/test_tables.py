"""Data contracts: a good table of each kind holds, and each rule is broken by one bad row that the report names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from models.contracts.messages import CandidateMessage, CandidateSet, Decision, RankedPassage
from models.contracts.tables import (
    TABLES,
    AppliedCorrections,
    Candidates,
    DecisionLog,
    ExcludedQueries,
    Judgments,
    LoggedLists,
    Passages,
    QuarantinedRows,
    Queries,
    TrainingCandidates,
    TrainingExamples,
    check_table,
    violations,
)
from models.errors import ContractError

GOOD: dict[Any, list[dict[str, Any]]] = {
    Passages: [
        {
            "passage_id": f"doc#{number}",
            "document_id": "doc",
            "title": title,
            "text": "Some text.",
            "start": 0,
            "end": 10,
            "source": "files",
            "access": access,
            "content_hash": "0a" * 32,
            "updated_at": updated_at,
        }
        for number, (title, access, updated_at) in enumerate(
            [("Title", [], None), ("", ["staff"], "2026-01-01T00:00:00Z")]
        )
    ],
    Queries: [
        {"query_id": "q1", "text": "how?", "split": "train", "kind": "given"},
        {"query_id": "q2", "text": "¿cómo?", "split": "dev", "kind": "title"},
        {"query_id": "q 3", "text": "怎么", "split": "test", "kind": "cloze"},
    ],
    Judgments: [
        {"query_id": "q1", "document_id": "d1", "grade": 0},
        {"query_id": "q1", "document_id": "d2", "grade": 100},
        {"query_id": "q2", "document_id": "d1", "grade": 1},
    ],
    QuarantinedRows: [
        {
            "table": "queries",
            "reason": "no text",
            "position": "queries.jsonl:3",
            "row": "",
            "rule": "missing",
            "digest": "0" * 24,
        }
    ]
    * 2,
    AppliedCorrections: [
        {"correction_id": f"c-{state}", "table": "queries", "position": "q.jsonl:3", "state": state, "message": "m"}
        for state in ("applied", "lapsed")
    ],
    Candidates: [
        {
            "query_id": query_id,
            "passage_id": f"d#{rank}",
            "document_id": "d",
            "rank": rank,
            "retriever_score": 0.03,
            "dense_score": 1.0,
            "lexical_score": 0.0,
        }
        for query_id in ("q1", "q2")
        for rank in (1, 2)
    ],
    TrainingCandidates: [
        {
            "query_id": "q1",
            "passage_id": f"d#{rank}",
            "document_id": "d",
            "rank": rank,
            "retriever_score": 0.03,
            "dense_score": 1.0,
            "lexical_score": 0.0,
            "dense_rank": rank,
            "lexical_rank": 0,
        }
        for rank in (1, 2)
    ],
    TrainingExamples: [
        {
            "query_id": "q1",
            "query": "how?",
            "passage_id": f"d#{number}",
            "passage": "Title Text",
            "label": label,
            "kind": kind,
            "dense_score": score,
            "lexical_score": score and 3.5,
        }
        for number, (label, kind, score) in enumerate([(1.0, "positive", -1.0), (0.0, "random", np.nan)])
    ],
    LoggedLists: [
        {"query_id": "d1", "query": "how?", "passage_id": name, "passage": "Some text."} for name in ("doc#0", "doc#1")
    ],
    ExcludedQueries: [
        {
            "query_id": "q1",
            "text": "how?",
            "reason": reason,
            "evaluation_query_id": "q2",
            "evaluation_text": "how then?",
            "overlap": 1.0,
            "cosine": -1.0,
        }
        | ({"query_id": "q9"} if reason == "same_meaning" else {})
        for reason in ("same_words", "same_meaning")
    ],
    DecisionLog: [
        {
            "decision_id": f"d{hour}",
            "trace_id": "t",
            "time": datetime(2026, 1, 2, hour, tzinfo=UTC),
            "endpoint": "/v2/rerank",
            "caller": "key-1",
            "experiment_arm": "champion",
            "release_id": "r-1",
            "model_version": "3",
            "index_version": "i",
            "corpus_version": "c",
            "degraded": False,
            "degraded_reason": "",
            "answered": True,
            "citations": 0,
            "passages": 2,
            "query": "",
            "query_characters": 0,
            "query_words": 0,
            "top_score": score,
            "mean_top10_score": score,
            "score_gap": score,
            "top_dense_score": score,
            "top_lexical_score": score,
            "share_scored_by_large": score,
            "latency_ms": score,
        }
        for hour, score in ((0, 1.0), (23, np.nan))
    ],
}

LONG = "x" * 513

BAD: list[tuple[Any, str, Any, str]] = [
    (Passages, "passage_id", "", "str_matches"),
    (Passages, "passage_id", " doc#1", "str_matches"),
    (Passages, "passage_id", LONG, "str_matches"),
    (Passages, "passage_id", "doc#0", "field_uniqueness"),
    (Passages, "passage_id", None, "not_nullable"),
    (Passages, "document_id", "doc ", "str_matches"),
    (Passages, "document_id", None, "not_nullable"),
    (Passages, "title", None, "not_nullable"),
    (Passages, "text", "", "str_length"),
    (Passages, "text", None, "not_nullable"),
    (Passages, "start", -1, "greater_than_or_equal_to"),
    (Passages, "end", 0, "greater_than"),
    (Passages, "source", None, "not_nullable"),
    (Passages, "access", "staff", "access_is_a_list_of_labels"),
    (Passages, "access", [1], "access_is_a_list_of_labels"),
    (Passages, "content_hash", "0A" * 32, "str_matches"),
    (Passages, "content_hash", "0a" * 31, "str_matches"),
    (Queries, "query_id", "", "str_matches"),
    (Queries, "query_id", "q1", "field_uniqueness"),
    (Queries, "text", " \n", "str_matches"),
    (Queries, "text", None, "not_nullable"),
    (Queries, "split", "validation", "isin"),
    (Queries, "kind", "guess", "isin"),
    (Judgments, "query_id", "q1 ", "str_matches"),
    (Judgments, "document_id", "", "str_matches"),
    (Judgments, "grade", -1, "greater_than_or_equal_to"),
    (Judgments, "grade", 101, "less_than_or_equal_to"),
    (QuarantinedRows, "table", "passages", "isin"),
    (QuarantinedRows, "reason", "", "str_length"),
    (QuarantinedRows, "position", None, "not_nullable"),
    (QuarantinedRows, "position", "", "str_length"),
    (QuarantinedRows, "row", None, "not_nullable"),
    (QuarantinedRows, "rule", "bad luck", "isin"),
    (QuarantinedRows, "digest", "0" * 23, "str_matches"),
    (AppliedCorrections, "correction_id", "", "str_matches"),
    (AppliedCorrections, "correction_id", "c-applied", "field_uniqueness"),
    (AppliedCorrections, "table", "passages", "isin"),
    (AppliedCorrections, "position", None, "not_nullable"),
    (AppliedCorrections, "state", "done", "isin"),
    (AppliedCorrections, "message", "", "str_length"),
    (Candidates, "query_id", "", "str_matches"),
    (Candidates, "passage_id", "", "str_matches"),
    (Candidates, "document_id", "", "str_matches"),
    (Candidates, "rank", 0, "greater_than_or_equal_to"),
    (Candidates, "retriever_score", np.nan, "not_nullable"),
    (Candidates, "dense_score", 1.1, "less_than_or_equal_to"),
    (Candidates, "dense_score", -1.1, "greater_than_or_equal_to"),
    (Candidates, "dense_score", np.nan, "not_nullable"),
    (Candidates, "lexical_score", -0.1, "greater_than_or_equal_to"),
    *(
        (TrainingCandidates, column, value, rule)
        for column, value, rule in (
            ("query_id", "", "str_matches"),
            ("passage_id", "", "str_matches"),
            ("document_id", "", "str_matches"),
            ("rank", 0, "greater_than_or_equal_to"),
            ("dense_score", 1.1, "less_than_or_equal_to"),
            ("dense_score", -1.1, "greater_than_or_equal_to"),
            ("lexical_score", -0.1, "greater_than_or_equal_to"),
            ("dense_rank", -1, "greater_than_or_equal_to"),
            ("lexical_rank", -1, "greater_than_or_equal_to"),
        )
    ),
    (TrainingExamples, "query_id", "", "str_matches"),
    (TrainingExamples, "query", " ", "str_matches"),
    (TrainingExamples, "passage_id", "", "str_matches"),
    (TrainingExamples, "passage", "", "str_length"),
    (TrainingExamples, "label", 1.01, "less_than_or_equal_to"),
    (TrainingExamples, "label", -0.01, "greater_than_or_equal_to"),
    (TrainingExamples, "label", np.nan, "not_nullable"),
    (TrainingExamples, "kind", "easy", "isin"),
    (TrainingExamples, "dense_score", -2.0, "greater_than_or_equal_to"),
    (TrainingExamples, "dense_score", 2.0, "less_than_or_equal_to"),
    (TrainingExamples, "lexical_score", -1.0, "greater_than_or_equal_to"),
    (LoggedLists, "query_id", "", "str_matches"),
    (LoggedLists, "query", " ", "str_matches"),
    (LoggedLists, "passage_id", "", "str_matches"),
    (LoggedLists, "passage", "", "str_length"),
    (ExcludedQueries, "query_id", "", "str_matches"),
    (ExcludedQueries, "query_id", "q1", "field_uniqueness"),
    (ExcludedQueries, "text", " ", "str_matches"),
    (ExcludedQueries, "reason", "alike", "isin"),
    (ExcludedQueries, "evaluation_query_id", "", "str_matches"),
    (ExcludedQueries, "evaluation_text", " ", "str_matches"),
    (ExcludedQueries, "overlap", -0.1, "greater_than_or_equal_to"),
    (ExcludedQueries, "overlap", 1.1, "less_than_or_equal_to"),
    (ExcludedQueries, "cosine", -1.1, "greater_than_or_equal_to"),
    (ExcludedQueries, "cosine", 1.1, "less_than_or_equal_to"),
    (DecisionLog, "decision_id", "", "str_matches"),
    (DecisionLog, "decision_id", "d0", "field_uniqueness"),
    (DecisionLog, "endpoint", "rerank", "str_startswith"),
    (DecisionLog, "caller", "probe", "not_equal_to"),
    (DecisionLog, "query", None, "not_nullable"),
    (DecisionLog, "release_id", None, "not_nullable"),
    (DecisionLog, "citations", -1, "greater_than_or_equal_to"),
    (DecisionLog, "passages", -1, "greater_than_or_equal_to"),
    (DecisionLog, "query_characters", -1, "greater_than_or_equal_to"),
    (DecisionLog, "query_words", -1, "greater_than_or_equal_to"),
    (DecisionLog, "top_score", -0.1, "greater_than_or_equal_to"),
    (DecisionLog, "top_score", 1.1, "less_than_or_equal_to"),
    (DecisionLog, "mean_top10_score", -0.1, "greater_than_or_equal_to"),
    (DecisionLog, "mean_top10_score", 1.1, "less_than_or_equal_to"),
    (DecisionLog, "score_gap", -0.1, "greater_than_or_equal_to"),
    (DecisionLog, "score_gap", 1.1, "less_than_or_equal_to"),
    (DecisionLog, "top_dense_score", -1.1, "greater_than_or_equal_to"),
    (DecisionLog, "top_dense_score", 1.1, "less_than_or_equal_to"),
    (DecisionLog, "top_lexical_score", -0.1, "greater_than_or_equal_to"),
    (DecisionLog, "share_scored_by_large", -0.1, "greater_than_or_equal_to"),
    (DecisionLog, "share_scored_by_large", 1.1, "less_than_or_equal_to"),
    (DecisionLog, "latency_ms", -0.1, "greater_than_or_equal_to"),
]


def good(schema: Any) -> pd.DataFrame:
    return pd.DataFrame(GOOD[schema])


def broken_rules(table: pd.DataFrame, schema: Any) -> set[tuple[str, str]]:
    result = violations(table, schema)
    return {(str(row["column"]), str(row["check"]).partition("(")[0]) for row in result.to_dict("records")}


@pytest.mark.parametrize("schema", GOOD)
def test_a_good_table_holds(schema: Any, tmp_path: Any) -> None:
    table = good(schema)
    assert violations(table, schema).empty
    check_table(table, schema, "table")
    table.to_parquet(tmp_path / "table.parquet")
    assert violations(pd.read_parquet(tmp_path / "table.parquet"), schema).empty, "nor does parquet change that"
    assert violations(table.iloc[:0], schema).empty, "an empty table with the right columns holds"


@pytest.mark.parametrize(("schema", "column", "value", "rule"), BAD)
def test_a_bad_row_breaks_its_rule_and_is_named(schema: Any, column: str, value: Any, rule: str) -> None:
    rows = [dict(row) for row in GOOD[schema]]
    rows[1][column] = value
    table = pd.DataFrame(rows)
    with pytest.raises(ContractError, match=rf"\n  row 1: {column}: {rule}(\(.*\))? \(got ") as refused:
        check_table(table, schema, "tables/t")
    assert refused.value.message.startswith("tables/t breaks its contract in ")


@pytest.mark.parametrize("schema", GOOD)
def test_every_rule_of_every_column_has_a_bad_row(schema: Any) -> None:
    tried = {(column, rule) for tried_schema, column, _, rule in BAD if tried_schema is schema}
    for name, column in schema.to_schema().columns.items():
        rules = {check.name for check in column.checks}
        rules |= {"field_uniqueness"} if column.unique else set()
        assert rules <= {rule for tried_column, rule in tried if tried_column == name}, name


@pytest.mark.parametrize("text", [" how?", "\thow?\n", "\u00a0how?"])
def test_blanks_before_a_query_are_no_fault(text: str) -> None:
    assert violations(good(Queries).assign(text=text), Queries).empty


def test_queries_that_all_come_from_the_source_need_no_kind() -> None:
    assert violations(good(Queries).drop(columns="kind"), Queries).empty


@pytest.mark.parametrize("name", ["q1\n", "\nq1", "q\n1"])
def test_an_id_stands_on_one_line(name: str) -> None:
    assert ("query_id", "str_matches") in broken_rules(good(Queries).assign(query_id=[name, "q2", "q3"]), Queries)


def test_a_passage_ends_after_it_starts() -> None:
    table = good(Passages).assign(start=[0, 10])
    assert {rule for _, rule in broken_rules(table, Passages)} == {"end_after_start"}


def test_a_decision_log_is_of_one_day() -> None:
    table = good(DecisionLog)
    later = table.assign(time=[table["time"][0], table["time"][1] + pd.Timedelta(hours=1)])
    assert {rule for _, rule in broken_rules(later, DecisionLog)} == {"one_day"}


@pytest.mark.parametrize("schema", [Judgments, Candidates, LoggedLists])
def test_a_pair_stands_once(schema: Any) -> None:
    table = pd.concat([good(schema), good(schema).iloc[:1]], ignore_index=True)
    assert {rule for _, rule in broken_rules(table, schema)} == {"multiple_fields_uniqueness"}


@pytest.mark.parametrize("schema", GOOD)
def test_columns_are_exactly_the_contracted_ones(schema: Any) -> None:
    table = good(schema)
    first = table.columns[0]
    assert (first, "column_in_dataframe") in {
        (str(row["failure_case"]), str(row["check"]))
        for row in violations(table.drop(columns=first), schema).to_dict("records")
    }
    assert {rule for _, rule in broken_rules(table.assign(extra=1), schema)} == {"column_in_schema"}


@pytest.mark.parametrize(
    ("schema", "column", "values"),
    [
        (Judgments, "grade", [1.0, 0.0, 1.0]),
        (Queries, "text", [1, 2, 3]),
        (Candidates, "dense_score", ["1", "1", "1", "1"]),
    ],
)
def test_types_are_checked_and_never_coerced(schema: Any, column: str, values: list[Any]) -> None:
    table = good(schema).assign(**{column: values})
    assert any(location == column and rule.startswith("dtype") for location, rule in broken_rules(table, schema))


def test_only_the_first_offending_rows_are_shown() -> None:
    table = pd.DataFrame({"query_id": ["q"] * 50, "document_id": [f"d{n}" for n in range(50)], "grade": [-1] * 50})
    with pytest.raises(ContractError) as refused:
        check_table(table, Judgments, "judgments")
    assert refused.value.message.startswith("judgments breaks its contract in 50 places")
    assert len(refused.value.message.splitlines()) == 21


def test_every_table_file_has_a_contract_with_described_columns() -> None:
    assert set(TABLES.values()) == set(GOOD)
    for schema in TABLES.values():
        assert [name for name, column in schema.to_schema().columns.items() if not column.description] == []


CANDIDATE: dict[str, Any] = {
    "passage_id": "d#0",
    "rank": 1,
    "retriever_score": 0.1,
    "dense_score": 0.5,
    "lexical_score": 2,
}


def test_messages_round_trip_and_carry_the_contract_version() -> None:
    message = CandidateSet(
        query="how?", candidates=[CandidateMessage(**CANDIDATE)], index_version="i1", corpus_version="c1"
    )
    assert CandidateSet.model_validate_json(message.model_dump_json()) == message
    assert message.contract_version


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (CandidateMessage, CANDIDATE | {"rank": 0}),
        (CandidateMessage, CANDIDATE | {"retriever": "magic"}),
        (CandidateMessage, CANDIDATE | {"unknown": 1}),
        (CandidateSet, {"query": "", "candidates": [], "index_version": "i1", "corpus_version": "c1"}),
        (RankedPassage, {"passage_id": "d#0", "rank": 1, "score": 1.01, "tier": "large"}),
        (RankedPassage, {"passage_id": "d#0", "rank": 1, "score": 0.5, "tier": "huge"}),
    ],
)
def test_a_message_that_breaks_its_contract_is_refused(message: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        message(**values)


def test_a_decision_keeps_its_time_with_the_zone() -> None:
    decision = Decision(
        decision_id="1", trace_id="t", time=datetime(2026, 1, 1, tzinfo=UTC), endpoint="/v2/rerank",
        caller="key:1", query="how?",
        candidates=[], ranking=[], release_id="r", model_version="m", index_version="i", corpus_version="c",
        stage_ms={},
    )  # fmt: skip
    assert Decision.model_validate_json(decision.model_dump_json()).time == datetime(2026, 1, 1, tzinfo=UTC)
