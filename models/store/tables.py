"""Parquet and Arrow tables: equal rows give equal bytes."""

from __future__ import annotations

import errno
import os
import types
import typing
from collections.abc import Iterable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.store.durable_files import writing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet: equal tables give equal bytes (with the same pyarrow), and read back as they were."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for name in table.columns:
        column = table[name]
        is_list = column.dtype == object and all(isinstance(value, list | tuple) for value in column)
        kind = pa.list_(pa.string()) if is_list else pa.string() if isinstance(column.dtype, pd.StringDtype) else None
        arrays[name] = pa.array(column, type=kind, from_pandas=True)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(arrays), path, compression="zstd")


_GROUP_ROWS = 16_384


def write_rows(rows: Iterable[Any], kind: type, path: Path) -> int:
    """Write rows of the dataclass `kind` as parquet, a row group at a time, and return how many there are.

    Equal rows in equal order give equal bytes (with the same pyarrow).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(kind)
    count = 0
    rows = iter(rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(islice(rows, _GROUP_ROWS)):
                count += len(group)
                writer.write_table(pa.Table.from_batches([record_batch(group, schema)]), row_group_size=_GROUP_ROWS)
    return count


def arrow_schema(kind: type) -> pa.Schema:
    """The Arrow schema of a dataclass."""
    import pyarrow as pa

    hints = typing.get_type_hints(kind)
    return pa.schema([pa.field(field.name, _arrow_type(hints[field.name])) for field in fields(kind)])


def _arrow_type(hint: Any) -> pa.DataType:
    import pyarrow as pa

    known = {str: pa.string(), int: pa.int64(), tuple[str, ...]: pa.list_(pa.string())}
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return known[str if typing.get_origin(hint) is typing.Literal else hint]


def record_batch(rows: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    """An Arrow batch of dataclass rows."""
    import pyarrow as pa

    arrays = [pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in schema]
    return pa.record_batch(arrays, schema=schema)


def python_values(column: pa.Array) -> list[Any]:
    """The values of an Arrow column; lists as tuples."""
    import pyarrow as pa

    values = column.to_pylist()
    return list(map(tuple, values)) if pa.types.is_list(column.type) else values


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write a table as an Arrow IPC file, uncompressed so that `map_arrow` can map it."""
    import pyarrow as pa

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)


def map_arrow(path: Path) -> pa.Table:
    """The table in an Arrow IPC file, memory-mapped. Raises `FileNotFoundError` naming a file that is missing."""
    import pyarrow as pa

    if not path.is_file():  # Arrow's own error leaves `filename` empty.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The values [n] of a column of numbers without nulls, not copied where it is in one piece.

    Arrow's own `to_numpy` imports pandas, which takes half a second.
    """
    import pyarrow as pa

    return np.from_dlpack(one_array(column) if isinstance(column, pa.ChunkedArray) else column)


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece; one that has one piece already is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
