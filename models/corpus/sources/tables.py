"""Tables in files, parquet or CSV and JSON Lines, plain or gzipped, read as rows under our column names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.contracts.rows import RejectedRow
from models.corpus.sources.base import rejected, unreadable
from models.corpus.sources.csv_rows import read_csv_rows
from models.corpus.sources.lines import read_json_lines, too_large
from models.corpus.sources.raw_rows import DocumentRow, JudgmentRow, QueryRow, RawRow, Row
from models.errors import SourceError
from models.settings import MAX_DECOMPRESSED_BYTES

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
CONTRACTS: Mapping[str, type[RawRow]] = {"documents": DocumentRow, "queries": QueryRow, "judgments": JudgmentRow}
"""What a row of each table must hold."""

_BATCH_ROWS = range(4, 32)
_BATCH_BYTES = 64_000_000
"""Rows of parquet to decode at a time, and bytes that they may have: a column can repeat one value by reference, so any
row may be as large as all that is stored of its column."""

_UNNAMED_ROWS = 1000
"""JSON rows without the required columns, from the first on, until it is the column names that are wrong."""


class ColumnNames:
    """Our column names and theirs. `mapping` has theirs for ours; `documents.text` as a key holds for that table only.

    `key` is the settings key of the mapping. Raises `SourceError` for a name that is none of ours.
    """

    def __init__(self, mapping: Mapping[str, str], key: str) -> None:
        self.mapping = mapping
        self.key = key
        columns = {(table, name) for table, kind in CONTRACTS.items() for name in kind.model_fields}
        known = {name for _, name in columns} | {f"{table}.{name}" for table, name in columns}
        for name in mapping:
            if name not in known:
                ours = ", ".join(sorted({name for _, name in columns}))
                raise SourceError(f"{key}: {name!r} is none of our columns", f"Ours: {ours}.")

    def present(self, table: str, columns: Sequence[str]) -> dict[str, str]:
        """Theirs for each of ours that is among `columns`."""
        named = {name: self._theirs(table, name, columns) for name in CONTRACTS[table].model_fields}
        return {ours: theirs for ours, theirs in named.items() if theirs in columns}

    def missing(self, table: str, columns: Sequence[str]) -> list[str]:
        """Theirs for the required ones that are not among `columns`."""
        present = self.present(table, columns)
        return [self._theirs(table, name, columns) for name in required(table) if name not in present]

    def require(self, where: object, table: str, columns: Sequence[str]) -> dict[str, str]:
        """`present`, or a `SourceError` naming `where`, the columns that are missing and those that exist."""
        present = self.present(table, columns)
        if missing := [name for name in required(table) if name not in present]:
            named = ", ".join(repr(self._theirs(table, name, columns)) for name in missing)
            raise SourceError(
                f"{where} has no column {named}; it has: {', '.join(map(str, columns))[:1000] or 'none'}",
                f"Name yours in {self.key}, as in {{ \"{table}.{missing[0]}\" = 'your_column' }}.",
            )
        for theirs in present.values():
            if list(columns).count(theirs) > 1:
                raise SourceError(f"{where} has more than one column {theirs!r}", "Rename one of them.")
        return present

    def _theirs(self, table: str, ours: str, columns: Sequence[str]) -> str:
        if f"{table}.{ours}" in self.mapping:
            return self.mapping[f"{table}.{ours}"]
        theirs = self.mapping.get(ours, ours)
        return ours if ours in columns and theirs not in columns else theirs


def require_table(path: Path, key: str) -> None:
    """Raise `SourceError` if the name of `path`, which the settings `key` gives, is of no known kind of table."""
    if not path.name.endswith(SUFFIXES):
        raise SourceError(f"{key}: {path} is of no known kind", f"Known: {', '.join(SUFFIXES)}.")


def required(table: str) -> list[str]:
    """The columns that a table must have."""
    return [name for name, field in CONTRACTS[table].model_fields.items() if field.is_required()]


def read_table_file(
    path: Path, table: str, names: ColumnNames, max_decompressed: int = MAX_DECOMPRESSED_BYTES
) -> Iterator[Row | RejectedRow]:
    """Yield (position, row under our column names) of a table file; rows that cannot be read come as `RejectedRow`.

    Memory is bounded by a line or a batch, whatever the file. Raises `SourceError` when the file cannot be read to its
    end, lacks a required column or, compressed, expands to more than `max_decompressed` bytes.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, table, names, max_decompressed)
    elif ".csv" in path.suffixes:
        yield from _csv_rows(path, table, names, max_decompressed)
    else:
        yield from _json_rows(path, table, names, max_decompressed)


def _csv_rows(path: Path, table: str, names: ColumnNames, max_decompressed: int) -> Iterator[Row | RejectedRow]:
    columns: dict[str, str] | None = None
    header: list[str] = []
    for item in read_csv_rows(path, table, max_decompressed):
        if isinstance(item, RejectedRow):
            yield item
        elif columns is None or isinstance(item, list):
            header = [str(name) for name in item]
            columns = names.require(path, table, header)
        else:
            row = dict(zip(header, item[1], strict=True))
            yield item[0], {ours: row[theirs] for ours, theirs in columns.items()}


def _json_rows(path: Path, table: str, names: ColumnNames, max_decompressed: int) -> Iterator[Row | RejectedRow]:
    unnamed: list[RejectedRow] | None = []
    columns: list[str] = []
    for item in read_json_lines(path, table, max_decompressed):
        if isinstance(item, RejectedRow):
            yield item
            continue
        position, record = item
        missing = names.missing(table, list(record))
        if not missing:
            yield from unnamed or ()
            unnamed = None
            yield position, {ours: record[theirs] for ours, theirs in names.present(table, list(record)).items()}
            continue
        row = rejected(table, f"no column {', '.join(map(repr, missing))}", position, record, rule="columns")
        if unnamed is None:
            yield row
            continue
        columns = columns or list(record)
        unnamed.append(row)
        if len(unnamed) > _UNNAMED_ROWS:
            names.require(path, table, columns)
    if unnamed:
        names.require(path, table, columns)


def _parquet_rows(path: Path, table: str, names: ColumnNames, max_decompressed: int) -> Iterator[Row | RejectedRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        # Checksums are verified where the writer put any; without `pre_buffer`, pages are read when they are needed.
        with pq.ParquetFile(
            path,
            metadata=metadata,
            pre_buffer=False,
            buffer_size=1 << 20,
            page_checksum_verification=True,
        ) as file:
            columns = names.require(path, table, file.schema_arrow.names)
            chosen = list(dict.fromkeys(columns.values()))
            sizes = _sizes(metadata, chosen)
            if sum(sizes) > max_decompressed:
                raise too_large(path, max_decompressed)
            number = 0
            fitting = _BATCH_BYTES // max([1, *sizes])
            rows = min(max(fitting, _BATCH_ROWS.start), _BATCH_ROWS.stop)
            for batch in file.iter_batches(rows, columns=chosen):
                for row in arrow_rows(batch, table, path.name, number):
                    yield row if isinstance(row, RejectedRow) else (row[0], {o: row[1][t] for o, t in columns.items()})
                number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise unreadable(path, error) from error


def _sizes(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """Bytes, uncompressed, of each chunk of `columns` and of what is nested in them."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    chunks = (group.column(index) for group in groups for index in range(group.num_columns))
    return [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]


def arrow_rows(batch: pa.RecordBatch, table: str, where: str, before: int) -> Iterator[Row | RejectedRow]:
    """Yield (position, values by column) of a batch behind `before` rows of `where`.

    A row with a value that has no form in Python, as text that is not UTF-8 or a year 300,000, is rejected.
    """
    import pyarrow as pa

    errors = (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError)
    try:
        rows = batch.to_pylist()
    except errors:
        rows = [None] * batch.num_rows
    for number, row in enumerate(rows):
        position = f"{where}:{before + number + 1}"
        if row is not None:
            yield position, row
            continue
        values: dict[str, Any] = {}
        problems = []
        for name in batch.schema.names:
            try:
                values[name] = batch.column(name)[number].as_py()
            except errors as error:
                problems.append(f"{name}: not UTF-8" if isinstance(error, UnicodeDecodeError) else f"{name}: {error}")
        if problems:
            rule = "encoding" if problems[0].endswith("not UTF-8") else "wrong_type"
            yield rejected(table, "; ".join(problems), position, values, rule=rule)
        else:
            yield position, values
