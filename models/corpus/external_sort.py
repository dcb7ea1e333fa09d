"""Tables of dataclass rows that are written to disk as they come, sorted there if need be: memory stays flat."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from models.store.durable_files import writing
from models.store.tables import arrow_schema, python_values, record_batch

Row = TypeVar("Row")
_BATCH_ROWS = 256


class Spill(Generic[Row]):
    """Rows of one dataclass in a file of their own, read back in the order in which they were added.

    The fields of `kind` are `str`, a literal of words, `str | None`, `int` or `tuple[str, ...]`. Raises `ArtifactError`
    when the disk is full.
    """

    def __init__(self, kind: type[Row], path: Path) -> None:
        self.kind = kind
        self.path = path
        self.count = 0
        self._schema = arrow_schema(kind)
        self._waiting: list[Row] = []
        self._file: Any = None

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows at the end."""
        for row in rows:
            self._waiting.append(row)
            self.count += 1
            if len(self._waiting) >= _BATCH_ROWS:
                self._flush()

    def __iter__(self) -> Iterator[Row]:
        """Read the rows back; nothing may be added afterwards."""
        import pyarrow as pa

        self._flush()
        if self._file is None:
            return
        with writing(self.path):
            self._file.close()
        with self.path.open("rb") as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                columns = [python_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    yield self.kind(*values)

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        with writing(self.path):
            if self._file is None:
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                self._file = pa.ipc.new_stream(str(self.path), self._schema, options=options)
            self._file.write_batch(record_batch(self._waiting, self._schema))
        self._waiting = []


class SortedSpill(Generic[Row]):
    """Rows of one dataclass, added in any order and read back sorted by `key`, a string and a number. Rows of equal
    keys come back in the order in which they were added.

    A table of SQLite at `path`, open for the block of a `with`. Raises `ArtifactError` when the disk is full.
    """

    def __init__(self, kind: type[Row], path: Path, key: Callable[[Row], tuple[str, int]]) -> None:
        self.kind = kind
        self.path = path
        self.count = 0
        self._key = key
        self._values = attrgetter(*arrow_schema(kind).names)
        with writing(path):
            self._database = sqlite3.connect(path, isolation_level=None)
            # Nothing of it outlives the process, so nothing has to be durable.
            self._database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE spilled (word, number, row); BEGIN"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._database.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        stored = [(*self._key(row), json.dumps(self._values(row), ensure_ascii=False)) for row in rows]
        with writing(self.path):
            self._database.executemany("INSERT INTO spilled VALUES (?, ?, ?)", stored)
        self.count += len(stored)

    def __iter__(self) -> Iterator[Row]:
        """Read the rows back in order; nothing may be added afterwards."""
        with writing(self.path):
            # The index sorts the keys alone; a query's own sorter would write every row once more.
            self._database.execute("CREATE INDEX IF NOT EXISTS in_order ON spilled (word, number)")
        for (row,) in self._database.execute(
            "SELECT row FROM spilled INDEXED BY in_order ORDER BY word, number, rowid"
        ):
            yield self.kind(*(tuple(value) if isinstance(value, list) else value for value in json.loads(row)))
