"""Tables of dataclass rows that are written to disk as they come, sorted there if need be: memory stays flat."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from models.store.durable_files import writing
from models.store.tables import arrow_schema, python_values, record_batch

Row = TypeVar("Row")
_BATCH_ROWS = 256
_RUN_ROWS = 16_384
_MAX_RUNS = 64


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
    """Rows of one dataclass, added in any order and read back sorted by `key`, after Knuth's merging of sorted runs."""

    def __init__(self, kind: type[Row], folder: Path, key: Callable[[Row], Any]) -> None:
        self.kind = kind
        self.count = 0
        self._folder = folder
        self._key = key
        self._waiting: list[Row] = []
        self._runs: list[Spill[Row]] = []
        self._made = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        before = len(self._waiting)
        self._waiting += rows
        self.count += len(self._waiting) - before
        if len(self._waiting) >= _RUN_ROWS:
            self._end_run()

    def __iter__(self) -> Iterator[Row]:
        """Read the rows back in order; nothing may be added afterwards."""
        self._end_run()
        return heapq.merge(*self._runs, key=self._key)

    def _end_run(self) -> None:
        self._runs.append(self._write(sorted(self._waiting, key=self._key)))
        self._waiting = []
        if len(self._runs) >= _MAX_RUNS:
            merged = self._write(heapq.merge(*self._runs, key=self._key))
            for run in self._runs:
                run.path.unlink(missing_ok=True)
            self._runs = [merged]

    def _write(self, rows: Iterable[Row]) -> Spill[Row]:
        self._made += 1
        run = Spill(self.kind, self._folder / f"run-{self._made}.arrow")
        run.add(rows)
        return run
