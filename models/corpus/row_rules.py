"""The rules that a document, query or judgment holds by itself; a row that breaks one is quarantined."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import datetime

from models.contracts.rows import SPLITS, Document, Judgment, Query, Rule

Problem = tuple[Rule, str]
_ID = re.compile(r"\S(?:.*\S)?")
_ID_CHARACTERS = 500
"""The contract allows 512; the rest is for the number of the passage."""
_MAX_GRADE = 100
_TITLE_CHARACTERS = 2000
_LABEL_CHARACTERS = 5000
"""Of all labels together: with title and source, what every passage of a document repeats."""


def row_key(row: Document | Query | Judgment) -> tuple[str, ...]:
    """The values that no other row of its table may have: the ids of a judgment, else its own id."""
    if isinstance(row, Judgment):
        return (row.query_id, row.document_id)
    return (row.document_id,) if isinstance(row, Document) else (row.query_id,)


def row_problem(row: Document | Query | Judgment) -> Problem | None:
    """The rule that a row breaks by itself and how, None when it holds its contract."""
    texts = _texts(row)
    if not all(map(_is_unicode, texts)):
        return "encoding", "not valid Unicode: it holds a lone surrogate"
    if any("\0" in text for text in texts):
        return "control_character", "it holds a NUL character, as no text does"
    for name in row_key(row):
        if len(name) > _ID_CHARACTERS or not _ID.fullmatch(name):
            rule: Rule = "bad_id" if name.strip() else "missing"
            return rule, f"an id must have 1 to {_ID_CHARACTERS} characters, on one line, without space at its ends"
    if isinstance(row, Judgment):
        return (
            None if 0 <= row.grade <= _MAX_GRADE else ("out_of_range", f"grade {row.grade} is not in 0 to {_MAX_GRADE}")
        )
    if not row.text.strip():
        return "missing", "no text"
    if isinstance(row, Document):
        return _document_problem(row)
    known = row.split in ("", *SPLITS)
    return None if known else ("out_of_range", f"split {row.split!r} is none of {', '.join(SPLITS)}")


def _document_problem(document: Document) -> Problem | None:
    if not all(label.strip() for label in document.access):
        return "missing", "an access label is empty"
    if len(document.title) > _TITLE_CHARACTERS or len(document.source) > _TITLE_CHARACTERS:
        return "too_long", f"title or source is longer than {_TITLE_CHARACTERS:,} characters"
    if sum(map(len, document.access)) > _LABEL_CHARACTERS:
        return "too_long", f"the access labels are longer than {_LABEL_CHARACTERS:,} characters"
    if document.updated_at is not None:
        try:
            datetime.fromisoformat(document.updated_at)
        except ValueError:
            return "wrong_type", f"updated_at {document.updated_at!r} is not an ISO 8601 time"
    return None


def unknown_reference(judgment: Judgment, queries: set[str], documents: set[str]) -> Problem | None:
    """Which of its query and document are not in the corpus; None when both are."""
    missing = [f"query {judgment.query_id}"] if judgment.query_id not in queries else []
    missing += [f"document {judgment.document_id}"] if judgment.document_id not in documents else []
    return ("unknown_reference", f"referential: names unknown {' and '.join(missing)}") if missing else None


def _texts(row: Document | Query | Judgment) -> list[str]:
    values = [getattr(row, field.name) for field in fields(row)]
    texts = [value for value in values if isinstance(value, str)]
    return [*texts, *row.access] if isinstance(row, Document) else texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
