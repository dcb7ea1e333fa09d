"""A passages table on disk, read by id or place: memory holds what was asked for, not the corpus."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_BATCH = 4096


class PassageTable:
    """A passages.parquet under `contracts.Passages`."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._path = path
        self._schema = pq.read_schema(path).remove_metadata()
        self.count = int(pq.read_metadata(path).num_rows)
        """Passages in it."""

    def read(self, passage_ids: Collection[str], columns: Sequence[str]) -> pd.DataFrame:
        """`passage_id` and `columns` of some passages, in the order of the table."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(sorted(set(passage_ids)), type=pa.string())
        parts = [batch.filter(pc.is_in(batch["passage_id"], value_set=wanted)) for _, batch in self._batches(columns)]
        return self._frame(parts, columns)

    def at(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pd.DataFrame:
        """`passage_id` and `columns` of the passages in the places `rows`, in the order of `rows`."""
        places, positions = np.unique(rows, return_inverse=True)
        parts = []
        for start, batch in self._batches(columns):
            low, high = np.searchsorted(places, (start, start + batch.num_rows))
            parts.append(batch.take(places[low:high] - start))
        return self._frame(parts, columns).iloc[positions].reset_index(drop=True)

    def stream(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        """(number of its first passage, `passage_id` and `columns`) of a piece of the table at a time."""
        for start, batch in self._batches(columns):
            yield start, batch.to_pandas()

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of its first passage, batch)."""
        import pyarrow.parquet as pq

        start = 0
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_BATCH, columns=_with_id(columns)):
                yield start, batch
                start += batch.num_rows

    def _frame(self, parts: Sequence[pa.RecordBatch], columns: Sequence[str]) -> pd.DataFrame:
        import pyarrow as pa

        schema = pa.schema([self._schema.field(name) for name in _with_id(columns)])
        return pa.Table.from_batches(list(parts), schema).to_pandas()


def _with_id(columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(["passage_id", *columns]))
