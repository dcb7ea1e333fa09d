"""The ids of the passages of an index in a memory-mapped Arrow file, which processes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from models.store.tables import map_arrow, numbers, one_array, write_arrow

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

IDS_FILE = "passage_ids.arrow"


class PassageIds(Sequence[str]):
    """Passage ids, row by row."""

    def __init__(self, table: pa.Table) -> None:
        """`table` has `passage_id` (large_string) and `order` (int64), each in one piece."""
        self._table = table
        self._ids: Any = one_array(table["passage_id"])
        self.order: NDArray[np.int64] = numbers(table["order"])
        """Place [n] of each id in the sorted list of ids: passages of equal score come in this order."""

    @classmethod
    def of(cls, ids: Iterable[str]) -> PassageIds:
        """Build the column in memory; a PassageIds is returned unchanged."""
        if isinstance(ids, PassageIds):
            return ids
        import pyarrow as pa
        from pyarrow import compute

        column = pa.array(ids if isinstance(ids, list) else list(ids), type=pa.large_string())
        # Arrow sorts by bytes of UTF-8, which is the order of code points, as Python's.
        order = np.empty(len(column), dtype=np.int64)
        order[compute.sort_indices(column).to_numpy()] = np.arange(len(column))
        return cls(pa.table({"passage_id": column, "order": order}))

    @classmethod
    def load(cls, folder: Path) -> PassageIds:
        """Map the ids in the folder of an index. Raises `FileNotFoundError` where there are none."""
        return cls(map_arrow(folder / IDS_FILE))

    def save(self, folder: Path) -> None:
        """Write the ids into the folder of an index."""
        write_arrow(self._table, folder / IDS_FILE)

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids at `rows`."""
        return self._ids.take(rows).to_pylist()

    def equal(self, column: pa.ChunkedArray) -> bool:
        """Whether a column of strings, in any number of pieces, holds these ids."""
        import pyarrow as pa

        return pa.chunked_array([self._ids]).equals(column.cast(pa.large_string()))

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        return self._ids[row].to_pylist() if isinstance(row, slice) else self._ids[row].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids.to_pylist())

    def __eq__(self, other: object) -> bool:
        return self._ids.equals(other._ids) if isinstance(other, PassageIds) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # compared by content, like a list
