"""The user's own tables of documents, queries and judgments: parquet, or CSV and JSON Lines, plain or gzipped."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from models.errors import SourceError
from models.settings import FilesSettings
from models.sources.base import as_grade, as_id, digest_files, rejected, require_file
from models.sources.lines import MAX_LINE_BYTES, open_bytes, read_json_lines
from models.types import Document, Judgment, Query, RejectedRow

REQUIRED = {
    "documents": ("document_id", "text"),
    "queries": ("query_id", "text"),
    "judgments": ("query_id", "document_id", "grade"),
}
OPTIONAL = {"documents": ("title", "source", "access", "updated_at"), "queries": ("split", "group"), "judgments": ()}
_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
_BATCH_ROWS = 1024

Row = tuple[str, dict[str, Any]]


class FilesSource:
    """Reads three tables below a folder, in batches or line by line.

    `settings.columns` maps our column names to theirs; `documents.text` as a key maps it for that table only. Raises
    `SourceError` naming the file, the column and the columns that exist.
    """

    def __init__(self, folder: Path, settings: FilesSettings) -> None:
        self.folder = folder
        self.settings = settings
        _check_mapping(settings.columns)
        names = {"documents": settings.documents, "queries": settings.queries, "judgments": settings.judgments}
        self._paths = {table: require_file(folder, [name], f"corpus.files.{table}") for table, name in names.items()}
        for table, path in self._paths.items():
            if not path.name.endswith(_SUFFIXES):
                raise SourceError(
                    f"corpus.files.{table}: {path} is of no known kind", f"Known: {', '.join(_SUFFIXES)}."
                )

    def fingerprint(self) -> str:
        """Digest of the contents of the three files and of the column names."""
        return digest_files("files", self._paths.values(), self.folder, self.settings.model_dump())

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents; `source` defaults to the file's name."""
        for item in self._rows("documents"):
            if isinstance(item, RejectedRow):
                yield item
                continue
            position, row = item
            access, updated_at = _labels(row.get("access")), _timestamp(row.get("updated_at"))
            if not as_id(row["document_id"]):
                yield rejected("documents", "no document_id", position, row)
            elif not isinstance(row["text"], str) or not row["text"].strip():
                yield rejected("documents", "no text", position, row)
            elif access is None:
                yield rejected(
                    "documents", "access is neither a list of labels nor comma-separated text", position, row
                )
            elif updated_at is None:
                yield rejected("documents", "updated_at is not an ISO 8601 time", position, row)
            else:
                title, source = str(row.get("title") or ""), str(row.get("source") or self._paths["documents"].name)
                yield Document(as_id(row["document_id"]), title, row["text"], source, access, updated_at or None)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries."""
        for item in self._rows("queries"):
            if isinstance(item, RejectedRow):
                yield item
                continue
            position, row = item
            if not as_id(row["query_id"]):
                yield rejected("queries", "no query_id", position, row)
            elif not isinstance(row["text"], str) or not row["text"].strip():
                yield rejected("queries", "no text", position, row)
            else:
                split, group = str(row.get("split") or "").strip(), str(row.get("group") or "")
                yield Query(as_id(row["query_id"]), row["text"], split, group)

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments."""
        for item in self._rows("judgments"):
            if isinstance(item, RejectedRow):
                yield item
                continue
            position, row = item
            query_id, document_id, grade = as_id(row["query_id"]), as_id(row["document_id"]), as_grade(row["grade"])
            if not query_id or not document_id:
                yield rejected("judgments", "no query_id or document_id", position, row)
            elif grade is None:
                yield rejected("judgments", f"grade {row['grade']!r} is not an integer", position, row)
            else:
                yield Judgment(query_id, document_id, grade)

    def _rows(self, table: str) -> Iterator[Row | RejectedRow]:
        """Yield (position, row under our column names); required columns are always there."""
        path = self._paths[table]
        if path.suffix == ".parquet":
            yield from self._parquet_rows(path, table)
        elif ".csv" in path.suffixes:
            yield from self._csv_rows(path, table)
        else:
            yield from self._json_rows(path, table)

    def _parquet_rows(self, path: Path, table: str) -> Iterator[Row]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                columns = self._columns(path, table, file.schema_arrow.names)
                number = 0
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(columns.values()))):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path.name}:{number}", {ours: row[theirs] for ours, theirs in columns.items()}
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{path} cannot be read: {error}", "Write the file again; it may be cut short."
            ) from error

    def _csv_rows(self, path: Path, table: str) -> Iterator[Row | RejectedRow]:
        csv.field_size_limit(MAX_LINE_BYTES)
        try:
            with open_bytes(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
                reader = csv.reader(file, strict=True)
                header = next(reader, [])
                columns = self._columns(path, table, header)
                while True:
                    first = reader.line_num + 1
                    position = f"{path.name}:{first}"
                    try:
                        fields = next(reader)
                    except StopIteration:
                        return
                    except csv.Error as error:
                        yield rejected(table, f"not CSV, lines {first} to {reader.line_num}: {error}", position)
                        continue
                    if not fields:
                        continue
                    problem = _csv_problem(fields, len(header))
                    row = dict(zip(header, fields, strict=False))
                    if problem:
                        yield rejected(table, problem, position, row)
                    else:
                        yield position, {ours: row[theirs] for ours, theirs in columns.items()}
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(
                f"{path} cannot be read: {error}", "Write the file again; it may be cut short."
            ) from error

    def _json_rows(self, path: Path, table: str) -> Iterator[Row | RejectedRow]:
        columns: dict[str, str] | None = None
        for item in read_json_lines(path, table):
            if isinstance(item, RejectedRow):
                yield item
                continue
            position, record = item
            if columns is None:
                columns = self._columns(path, table, list(record))
                columns |= {name: self._theirs(table, name, ()) for name in OPTIONAL[table] if name not in columns}
            missing = [columns[name] for name in REQUIRED[table] if columns[name] not in record]
            if missing:
                yield rejected(table, f"no {', '.join(missing)}", position, record)
            else:
                yield position, {ours: record.get(theirs) for ours, theirs in columns.items()}

    def _columns(self, path: Path, table: str, present: Sequence[str]) -> dict[str, str]:
        columns = {name: self._theirs(table, name, present) for name in (*REQUIRED[table], *OPTIONAL[table])}
        missing = [name for name in REQUIRED[table] if columns[name] not in present]
        if missing:
            named = ", ".join(f"{columns[name]!r}" for name in missing)
            raise SourceError(
                f"{path} has no column {named}; it has: {', '.join(present) or 'none'}",
                f"Name yours in corpus.files.columns, as in {{ \"{table}.{missing[0]}\" = 'your_column' }}.",
            )
        return {ours: theirs for ours, theirs in columns.items() if theirs in present}

    def _theirs(self, table: str, ours: str, present: Sequence[str]) -> str:
        mapping = self.settings.columns
        if f"{table}.{ours}" in mapping:
            return mapping[f"{table}.{ours}"]
        theirs = mapping.get(ours, ours)
        return ours if ours in present and theirs not in present else theirs


def _check_mapping(columns: Mapping[str, str]) -> None:
    known = {name for table in REQUIRED for name in (*REQUIRED[table], *OPTIONAL[table])}
    qualified = {f"{table}.{name}" for table in REQUIRED for name in (*REQUIRED[table], *OPTIONAL[table])}
    for name in columns:
        if name not in known | qualified:
            raise SourceError(
                f"corpus.files.columns: {name!r} is none of our columns", f"Ours: {', '.join(sorted(known))}."
            )


def _csv_problem(fields: Sequence[str], expected: int) -> str:
    if len(fields) != expected:
        return f"{len(fields)} fields instead of {expected}"
    if any("\udc80" <= character <= "\udcff" for field in fields if not field.isascii() for character in field):
        return "not UTF-8"
    return ""


def _labels(value: object) -> tuple[str, ...] | None:
    """Access labels; None for a value that is none, so that it is never taken for public."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(label.strip() for label in value.split(",") if label.strip())
    if isinstance(value, list | tuple) and all(isinstance(label, str) and label.strip() for label in value):
        return tuple(label.strip() for label in value)
    return None


def _timestamp(value: object) -> str | None:
    """ISO 8601 with offset (UTC where the value has none), an empty string for no value, None for no time."""
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
