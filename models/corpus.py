"""A corpus source read into the tables of the data contracts; what breaks them goes to quarantine with the reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from models.chunking import PassageRow, split_documents
from models.contracts import SPLITS
from models.settings import CorpusSettings
from models.sources.base import LEAKAGE, CorpusSource, rejected
from models.splits import place_queries, repeated_texts
from models.types import Document, Judgment, Query, RejectedRow

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Row = TypeVar("Row", Document, Query, Judgment)

_BATCH_DOCUMENTS = 256
_ID = re.compile(r"\S(?:.*\S)?")
_ID_CHARACTERS = 500
"""The contract allows 512; the rest is for the number of the passage."""

_MAX_GRADE = 100
_TABLES = ("documents", "queries", "judgments")
_TYPES: dict[str, str] = {"start": "int64", "end": "int64", "grade": "int64", "access": "object"}


@dataclass(frozen=True)
class CorpusTables:
    """The corpus under the contracts `Passages`, `Queries`, `Judgments` and `QuarantinedRows`, each sorted by id."""

    passages: pd.DataFrame
    queries: pd.DataFrame
    judgments: pd.DataFrame
    quarantined_rows: pd.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each table, queries by split, and documents."""
        splits = Counter(self.queries["split"])
        return {
            "documents": len(set(self.passages["document_id"])),
            "passages": len(self.passages),
            "queries": len(self.queries),
            **{f"queries_{split}": splits[split] for split in SPLITS},
            "judgments": len(self.judgments),
            "quarantined_rows": len(self.quarantined_rows),
        }


def read_corpus(source: CorpusSource, settings: CorpusSettings, tokenizer: Tokenizer) -> CorpusTables:
    """Read a source into passages, split queries, judgments and quarantined rows.

    No row raises: what is malformed, repeated (the first wins), breaks its contract, names an unknown row or leaks
    between splits goes to quarantine. Raises `SourceError` when the source itself cannot be read.
    """
    refused: list[RejectedRow] = []
    passages = _read_passages(source, settings, tokenizer, refused)
    read_queries = list(_accept(source.queries(), "queries", refused))
    documents = {row.document_id for row in passages}
    known = {query.query_id for query in read_queries}
    read_judgments = list(
        _accept(source.judgments(), "judgments", refused, lambda row: _problem(row) or _unknown(row, known, documents))
    )
    queries, judgments = _frame(read_queries, Query), _frame(read_judgments, Judgment)
    placed = place_queries(queries, judgments, settings.dev_share, settings.test_share)
    leaks = repeated_texts(placed)
    refused += _leak_rows(placed, judgments, leaks)
    kept = placed.loc[~placed["query_id"].isin(leaks["query_id"])].reset_index(drop=True)
    judgments = judgments.loc[~judgments["query_id"].isin(leaks["query_id"])]
    return CorpusTables(
        passages=_passage_frame(passages),
        queries=kept,
        judgments=judgments.sort_values(["query_id", "document_id"], ignore_index=True),
        quarantined_rows=_frame(sorted(refused, key=lambda row: _TABLES.index(row.table)), RejectedRow),
    )


def rejected_share(tables: CorpusTables) -> float:
    """Share of refused rows in the worst of documents, queries and judgments, 0 to 1.

    The worst, because a million good documents would hide that no judgment was usable. Well-formed rows that were kept
    out as leakage between splits do not count.
    """
    quarantined = tables.quarantined_rows
    pairs = zip(quarantined["table"], quarantined["reason"], strict=True)
    refused = Counter(table for table, reason in pairs if not reason.startswith(LEAKAGE))
    return max(refused[name] / max(refused[name] + tables.counts[name], 1) for name in _TABLES)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet: equal tables give equal bytes (with the same pyarrow), and read back as they were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for name in table.columns:
        column = table[name]
        is_list = column.dtype == object and all(isinstance(value, list | tuple) for value in column)
        kind = pa.list_(pa.string()) if is_list else pa.string() if isinstance(column.dtype, pd.StringDtype) else None
        arrays[name] = pa.array(column, type=kind, from_pandas=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), path, compression="zstd")


def _read_passages(
    source: CorpusSource, settings: CorpusSettings, tokenizer: Tokenizer, refused: list[RejectedRow]
) -> list[PassageRow]:
    rows: list[PassageRow] = []
    taken: set[str] = set()
    documents = _accept(source.documents(), "documents", refused)
    while batch := list(islice(documents, _BATCH_DOCUMENTS)):
        pieces = split_documents(batch, tokenizer, settings.passage_tokens, settings.overlap_tokens)
        for document, passages in zip(batch, pieces, strict=True):
            repeated = [row.passage_id for row in passages if row.passage_id in taken]
            if repeated:
                reason = f"passage id {repeated[0]} is taken by another document"
                refused.append(rejected("documents", reason, document.document_id, _show(document)))
            else:
                rows += passages
                taken.update(row.passage_id for row in passages)
    return rows


def _accept(
    rows: Iterable[Row | RejectedRow],
    table: str,
    refused: list[RejectedRow],
    find_problem: Callable[[Row], str] | None = None,
) -> Iterator[Row]:
    """Yield the rows that hold their contract, each key once; put the others on `refused`."""
    seen: set[Any] = set()
    for number, row in enumerate(rows, 1):
        if isinstance(row, RejectedRow):
            refused.append(row)
            continue
        key, problem = _key(row), (find_problem or _problem)(row)
        if not problem and key in seen:
            problem = f"repeats {' '.join(key)}; the first one is kept"
        if problem:
            refused.append(rejected(table, problem, f"{table} row {number}", _show(row)))
        else:
            seen.add(key)
            yield row


def _key(row: Document | Query | Judgment) -> tuple[str, ...]:
    if isinstance(row, Judgment):
        return (row.query_id, row.document_id)
    return (row.document_id,) if isinstance(row, Document) else (row.query_id,)


def _problem(row: Document | Query | Judgment) -> str:
    """Why a row breaks its contract; empty when it holds."""
    if not _is_unicode(row):
        return "not valid Unicode: it holds a lone surrogate"
    for name in _key(row):
        if len(name) > _ID_CHARACTERS or not _ID.fullmatch(name):
            return f"an id must have 1 to {_ID_CHARACTERS} characters, on one line, without space at its ends"
    if isinstance(row, Judgment):
        return "" if 0 <= row.grade <= _MAX_GRADE else f"grade {row.grade} is not in 0 to {_MAX_GRADE}"
    if not row.text.strip():
        return "no text"
    if isinstance(row, Query):
        return "" if row.split in ("", *SPLITS) else f"split {row.split!r} is none of {', '.join(SPLITS)}"
    return _document_problem(row)


def _document_problem(document: Document) -> str:
    if not all(label.strip() for label in document.access):
        return "an access label is empty"
    if document.updated_at is not None:
        try:
            datetime.fromisoformat(document.updated_at)
        except ValueError:
            return f"updated_at {document.updated_at!r} is not an ISO 8601 time"
    return ""


def _unknown(judgment: Judgment, queries: set[str], documents: set[str]) -> str:
    """Which of its query and document are not in the corpus; empty when both are."""
    missing = [f"query {judgment.query_id}"] if judgment.query_id not in queries else []
    missing += [f"document {judgment.document_id}"] if judgment.document_id not in documents else []
    return f"referential: names unknown {' and '.join(missing)}" if missing else ""


def _leak_rows(queries: pd.DataFrame, judgments: pd.DataFrame, leaks: pd.DataFrame) -> list[RejectedRow]:
    """Rows for the queries that repeat one of a stronger split, and for their judgments."""
    others = dict(zip(leaks["query_id"], leaks["other_id"], strict=True))
    splits = dict(zip(queries["query_id"], queries["split"], strict=True))
    rows = []
    for table, frame in (("queries", queries), ("judgments", judgments)):
        for values in frame.loc[frame["query_id"].isin(list(others))].itertuples(index=False):
            record = dict(zip(frame.columns, values, strict=True))
            query_id = record["query_id"]
            other = others[query_id]
            reason = f"{LEAKAGE}: the {splits[query_id]} query {query_id} has the text of {splits[other]} query {other}"
            rows.append(rejected(table, reason, f"query {query_id}", json.dumps(record, ensure_ascii=False)))
    return rows


def _passage_frame(rows: list[PassageRow]) -> pd.DataFrame:
    ordered = sorted(rows, key=lambda row: (row.document_id, row.start))
    frame = _frame(ordered, PassageRow)
    return frame.assign(access=pd.Series([list(row.access) for row in ordered], dtype=object))


def _frame(rows: list[Any], kind: type) -> pd.DataFrame:
    """A table with the columns of a dataclass, typed also when it has no rows or a column has no values."""
    columns = {}
    for field in fields(kind):
        values = [getattr(row, field.name) for row in rows]
        columns[field.name] = pd.Series(values, dtype=_TYPES.get(field.name, "str"))
    return pd.DataFrame(columns)


def _is_unicode(row: Document | Query | Judgment) -> bool:
    values = [getattr(row, field.name) for field in fields(row)]
    texts = [value for value in values if isinstance(value, str)]
    if isinstance(row, Document):
        texts += row.access
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _show(row: Document | Query | Judgment) -> str:
    return json.dumps(asdict(row), ensure_ascii=False)
