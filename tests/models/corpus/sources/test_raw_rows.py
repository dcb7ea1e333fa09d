from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.raw_rows import (
    DocumentRow,
    JudgmentRow,
    QueryRow,
    parse,
    read_documents,
    read_judgments,
    read_queries,
)


def _document(**values: Any) -> DocumentRow | RejectedRow:
    return parse(DocumentRow, {"document_id": "d", "text": "x"} | values, "documents", "here:1")


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (" a ", "a"),
        (7, "7"),
        (Decimal("7.0"), "7"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (10**399, "1" + "0" * 399),
    ],
)
def test_ids_are_text_or_integers(value: object, known: str) -> None:
    row = _document(document_id=value)
    assert isinstance(row, DocumentRow)
    assert row.document_id == known


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("document_id", None, "missing"),
        ("document_id", " ", "missing"),
        ("document_id", True, "neither text nor an integer"),
        ("document_id", 1.0, "neither text nor an integer"),
        ("document_id", Decimal("1.5"), "neither text nor an integer"),
        ("document_id", Decimal("NaN"), "neither text nor an integer"),
        ("document_id", Decimal("1E+999999"), "neither text nor an integer"),
        ("document_id", 10**400, "an integer of more than 400 digits"),
        ("document_id", ["a"], "neither text nor an integer"),
        ("text", None, "missing"),
        ("text", " \n", "missing"),
        ("text", b"x", "not text"),
        ("text", "x" * 10_000_001, "longer than 10,000,000 characters"),
        ("title", 1.5, "not text"),
        ("title", {"a": 1}, "not text"),
        ("access", 5, "neither a list of labels nor comma-separated text"),
        ("access", ["a", 1], "neither a list of labels nor comma-separated text"),
        ("access", "[1]", "neither a list of labels nor comma-separated text"),
        ("access", "[" * 100_000, "neither a list of labels nor comma-separated text"),
        ("updated_at", "soon", "not an ISO 8601 time"),
        ("updated_at", 5, "not an ISO 8601 time"),
    ],
)
def test_what_breaks_a_rule_is_rejected_with_column_and_rule(column: str, value: object, rule: str) -> None:
    row = _document(**{column: value})
    assert isinstance(row, RejectedRow)
    assert (row.table, row.reason, row.position) == ("documents", f"{column}: {rule}", "here:1")
    assert len(row.row) <= 10_000


@pytest.mark.parametrize(
    ("value", "labels"),
    [(None, ()), ("", ()), ("a, b,", ("a", "b")), ('["a", " b "]', ("a", "b")), ([" a"], ("a",)), ((), ())],
)
def test_labels_are_lists_their_json_or_text_with_commas(value: object, labels: tuple[str, ...]) -> None:
    row = _document(access=value)
    assert isinstance(row, DocumentRow)
    assert row.access == labels


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2024-05-01", "2024-05-01T00:00:00+00:00"),
        (" 2024-05-01T10:00:00+02:00", "2024-05-01T10:00:00+02:00"),
        (date(2024, 5, 1), "2024-05-01T00:00:00+00:00"),
        (datetime(2024, 5, 1, 10, tzinfo=timezone(timedelta(hours=2))), "2024-05-01T10:00:00+02:00"),
        (datetime(2024, 5, 1, tzinfo=UTC).replace(tzinfo=None), "2024-05-01T00:00:00+00:00"),
        ("", None),
        (None, None),
    ],
)
def test_times_are_iso_8601_in_utc_where_they_do_not_say(value: object, time: str | None) -> None:
    row = _document(updated_at=value)
    assert isinstance(row, DocumentRow)
    assert row.updated_at == time


@pytest.mark.parametrize(("value", "grade"), [(1, 1), (2.0, 2), ("3", 3), (" -1 ", -1), (Decimal("4.0"), 4)])
def test_grades_are_integers_however_they_are_written(value: object, grade: int) -> None:
    row = parse(JudgmentRow, {"query_id": "q", "document_id": "d", "grade": value}, "judgments", "here:1")
    assert isinstance(row, JudgmentRow)
    assert row.judgment() == Judgment("q", "d", grade)


@pytest.mark.parametrize(
    "value", [None, True, 1.5, "x", "1.0", "", float("nan"), float("inf"), Decimal("sNaN"), [1], "9" * 500]
)
def test_other_grades_are_rejected(value: object) -> None:
    row = parse(JudgmentRow, {"query_id": "q", "document_id": "d", "grade": value}, "judgments", "here:1")
    assert isinstance(row, RejectedRow)
    assert row.reason.startswith("grade: ")


def test_every_broken_rule_is_named_and_the_row_shown_as_json() -> None:
    row = parse(QueryRow, {"query_id": None, "text": 5, "extra": datetime(2024, 5, 1, tzinfo=UTC)}, "queries", "here:1")
    assert isinstance(row, RejectedRow)
    assert row.reason == "query_id: missing; text: not text"
    assert json.loads(row.row) == {"query_id": None, "text": 5, "extra": "2024-05-01 00:00:00+00:00"}


def test_rows_that_cannot_be_shown_are_rejected_all_the_same() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {(1, 2): 3}):
        row = _document(title=value)
        assert isinstance(row, RejectedRow)
        assert row.row == "a dict that cannot be shown"


def test_tables_of_rows_become_ours_in_order() -> None:
    bad = RejectedRow("documents", "bad", "here:2")
    rows: list[Any] = [("here:1", {"document_id": "d", "text": "x"}), bad]
    assert list(read_documents(rows, "file")) == [Document("d", "", "x", "file"), bad]
    queries: list[Any] = [("here:1", {"query_id": 1, "text": "x?", "split": " test ", "group": "g"}), bad]
    assert list(read_queries(queries)) == [Query("1", "x?", "test", "g"), bad]
    judgments: list[Any] = [("here:1", {"query_id": 1, "document_id": 2, "grade": 1}), bad]
    assert list(read_judgments(judgments)) == [Judgment("1", "2", 1), bad]
