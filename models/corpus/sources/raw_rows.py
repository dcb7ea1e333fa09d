"""The contracts of raw rows: which columns a source's row has and what each must hold, before it becomes ours.

A row that breaks its contract becomes a `RejectedRow` with every rule it breaks; see `parse`. Columns that no contract
names are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar, cast, get_args
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import PydanticCustomError

from models.contracts.rows import Document, Judgment, Place, Query, RejectedRow, Rule
from models.corpus.sources.base import rejected, row_digest

Row = tuple[str, dict[str, Any]]
"""Where a row stands in its source, and its values by column."""

TEXT_CHARACTERS = 10_000_000
"""Characters of one text, at most: as many as a line of a file may have bytes."""

_DIGITS = 400
_OURS = "contract."
"""Marks what `broken` makes: pydantic has errors of the same names."""

_WORDS = {"missing": "missing"}
"""Our words for what pydantic reports in its own."""


def broken(rule: Rule, words: str) -> PydanticCustomError:
    """The error of a value, or of a row, that breaks a rule."""
    return PydanticCustomError(f"{_OURS}{rule}", "{words}", {"words": words})


def _id(value: object) -> str:
    value = _integral(value)
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        value = str(value)
    if not isinstance(value, str):
        raise broken("missing", "missing") if value is None else broken("wrong_type", "neither text nor an integer")
    if not value.strip():
        raise broken("missing", "missing")
    return value.strip()


def _integral(value: object) -> object:
    """A database's exact number without decimals as an integer; numbers of more than `_DIGITS` digits are refused."""
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _DIGITS and value == int(value):
        value = int(value)
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        raise broken("too_long", f"an integer of more than {_DIGITS} digits")
    return value


def _optional_text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise broken("wrong_type", "not text")
    if value is not None and len(value) > TEXT_CHARACTERS:
        raise broken("too_long", f"longer than {TEXT_CHARACTERS:,} characters")
    return value or ""


def _text(value: object) -> str:
    text = _optional_text(value)
    if not text.strip():
        raise broken("missing", "missing")
    return text


def _label(value: object) -> str:
    value = _integral(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise broken("wrong_type", "not text")
    return value or ""


def _access(value: object) -> tuple[str, ...]:
    """Labels; a value that is none is refused, so that it is never taken for public."""
    if value is None:
        return ()
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return tuple(label.strip() for label in value.split(",") if label.strip())
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, list | tuple) and all(isinstance(label, str) and label.strip() for label in value):
        return tuple(label.strip() for label in value)
    raise broken("wrong_type", "neither a list of labels nor comma-separated text")


def _time(value: object) -> str | None:
    """ISO 8601 with offset, UTC where the value has none."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise broken("wrong_type", "not an ISO 8601 time")
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()


def _grade(value: object) -> int:
    if isinstance(value, str):
        digits = value.strip()
        value = int(digits) if digits.removeprefix("-").isdecimal() and len(digits) < _DIGITS else value
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    value = _integral(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise broken("wrong_type", "not an integer")
    return value


Id = Annotated[str, BeforeValidator(_id)]
Text = Annotated[str, BeforeValidator(_text)]
OptionalText = Annotated[str, BeforeValidator(_optional_text)]
Label = Annotated[str, BeforeValidator(_label)]
Access = Annotated[tuple[str, ...], BeforeValidator(_access)]
Time = Annotated[str | None, BeforeValidator(_time)]
Grade = Annotated[int, BeforeValidator(_grade), Field(strict=True)]


class RawRow(BaseModel):
    """A row as a source has it; `place` is where it stands there."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    _place: Place | None = PrivateAttr(default=None)

    @property
    def place(self) -> Place | None:
        """Set by `parse`."""
        return self._place


class DocumentRow(RawRow):
    """A document of a table: file, SQL query or Hugging Face data set."""

    document_id: Id = Field(description="Text or integer, not empty.")
    text: Text = Field(description="Text with a visible character.")
    title: Label = Field(default="", description="Text or integer.")
    source: Label = Field(default="", description="Where it comes from; the name of the table if empty.")
    access: Access = Field(
        default=(), description="Labels of which a reader needs one: a list, its JSON, or comma-separated text."
    )
    updated_at: Time = Field(default=None, description="ISO 8601 text, a date or a time; UTC where it has no offset.")

    def document(self, source: str) -> Document:
        """As a document; `source` is named where the row names none."""
        named = self.source or source
        return Document(self.document_id, self.title, self.text, named, self.access, self.updated_at, self.place)


class QueryRow(RawRow):
    """A query of a table."""

    query_id: Id = Field(description="Text or integer, not empty.")
    text: Text = Field(description="Text with a visible character.")
    split: Label = Field(default="", description="train, dev or test; RerankOps decides if empty.")
    group: Label = Field(default="", description="What must not straddle splits, as an article.")

    def query(self) -> Query:
        """As a query."""
        return Query(self.query_id, self.text, self.split.strip(), self.group, self.place)


class JudgmentRow(RawRow):
    """A judgment of a table."""

    query_id: Id = Field(description="A query's id.")
    document_id: Id = Field(description="A document's id.")
    grade: Grade = Field(description="An integer, also as float or text: 0 not relevant, higher is more relevant.")

    def judgment(self) -> Judgment:
        """As a judgment."""
        return Judgment(self.query_id, self.document_id, self.grade, self.place)


def read_documents(rows: Iterable[Row | RejectedRow], source: str) -> Iterator[Document | RejectedRow]:
    """Yield the rows of a table of documents that keep its contract, as documents, and the others rejected."""
    for row in _parse_all(rows, DocumentRow, "documents"):
        yield row if isinstance(row, RejectedRow) else row.document(source)


def read_queries(rows: Iterable[Row | RejectedRow]) -> Iterator[Query | RejectedRow]:
    """Yield the rows of a table of queries that keep its contract, as queries, and the others rejected."""
    for row in _parse_all(rows, QueryRow, "queries"):
        yield row if isinstance(row, RejectedRow) else row.query()


def read_judgments(rows: Iterable[Row | RejectedRow]) -> Iterator[Judgment | RejectedRow]:
    """Yield the rows of a table of judgments that keep its contract, as judgments, and the others rejected."""
    for row in _parse_all(rows, JudgmentRow, "judgments"):
        yield row if isinstance(row, RejectedRow) else row.judgment()


def place_judgments(
    rows: Iterable[Row | RejectedRow], kind: type[JudgmentRow] = JudgmentRow
) -> Iterator[tuple[str, Judgment] | RejectedRow]:
    """`read_judgments` with the position of each judgment."""
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
            continue
        judgment = parse(kind, row[1], "judgments", row[0])
        yield judgment if isinstance(judgment, RejectedRow) else (row[0], judgment.judgment())


RowType = TypeVar("RowType", bound=RawRow)


def parse(kind: type[RowType], record: Mapping[str, Any], table: str, position: str) -> RowType | RejectedRow:
    """`record` as a row of `kind`, or the `RejectedRow` that names each column that breaks a rule."""
    try:
        row = kind.model_validate(record)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        words = [": ".join([*map(str, item["loc"][:1]), _WORDS.get(item["type"]) or item["msg"]]) for item in problems]
        kinds = [item["type"].removeprefix(_OURS) for item in problems]
        rule = cast(Rule, next((kind for kind in kinds if kind in get_args(Rule)), "wrong_type"))
        return rejected(table, "; ".join(words), position, record, rule=rule)
    row._place = Place(position, row_digest(record))
    return row


def _parse_all(rows: Iterable[Row | RejectedRow], kind: type[RowType], table: str) -> Iterator[RowType | RejectedRow]:
    for row in rows:
        yield row if isinstance(row, RejectedRow) else parse(kind, row[1], table, row[0])
