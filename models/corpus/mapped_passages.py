"""The passages of a bundle in memory-mapped Arrow files: processes share them, and a load reads none of them.

passages.arrow        the passages table (`contracts.Passages`), row i being row i of the indexes
passage_texts.arrow   `digest` (8 bytes of BLAKE2b as uint64, ascending) of each text, alone and behind its title, and
                      the `row` of its passage
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.contracts.rows import Passage
from models.store.durable_files import writing
from models.store.tables import map_arrow, numbers, write_arrow
from models.text.passage_text import passage_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

PASSAGES_FILE = "passages.arrow"
TEXTS_FILE = "passage_texts.arrow"

_BATCH = 16_384


def write_mapped_passages(parquet: Path, folder: Path) -> None:
    """Write passages.parquet of `parquet` as `MappedPassages` reads them, some thousand at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain, titled = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.uint64)]
    with writing(folder / PASSAGES_FILE), pq.ParquetFile(parquet) as source:
        schema = source.schema_arrow.remove_metadata()
        with pa.ipc.new_file(str(folder / PASSAGES_FILE), schema) as target:
            for batch in source.iter_batches(_BATCH):
                target.write_batch(batch)
                titles, texts = batch["title"].to_pylist(), batch["text"].to_pylist()
                plain.append(_digests(texts))
                titled.append(_digests(map(passage_text, titles, texts)))
    digests, rows = _rows_by_text(np.concatenate(plain), np.concatenate(titled))
    write_arrow(pa.table({"digest": digests, "row": rows}), folder / TEXTS_FILE)


class MappedPassages:
    """The passages that `write_mapped_passages` wrote. Any number of threads may read them."""

    def __init__(self, folder: Path) -> None:
        """Map the files in `folder`. Raises `FileNotFoundError` where one is missing."""
        self.table = map_arrow(folder / PASSAGES_FILE)
        self._titles, self._texts = self.table["title"], self.table["text"]
        texts = map_arrow(folder / TEXTS_FILE)
        self._digests: NDArray[np.uint64] = numbers(texts["digest"])
        self._rows: NDArray[np.int64] = numbers(texts["row"])

    def __len__(self) -> int:
        return self.table.num_rows

    def passage(self, row: int) -> Passage:
        """The passage at `row`."""
        values: dict[str, Any] = self.table.slice(row, 1).to_pylist()[0]
        return Passage(**{**values, "access": tuple(values["access"])})

    def text(self, row: int) -> str:
        """Title and text of a passage, as the models read them."""
        return passage_text(self._titles[row].as_py(), self._texts[row].as_py())

    def rows_of(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The passage [n] that each of `texts` is, word for word, with its title or without; -1 where it is none.

        A text without its title that passages of several titles share is none of them: each has a vector of its own.
        """
        rows = np.full(len(texts), -1, dtype=np.int64)
        if not len(self._digests) or not len(texts):
            return rows
        digests = _digests(texts)
        places = np.minimum(np.searchsorted(self._digests, digests), len(self._digests) - 1)
        for position in np.flatnonzero(self._digests[places] == digests).tolist():
            row = int(self._rows[places[position]])
            # Eight bytes are no proof: a caller could search for a text of the same digest.
            if texts[position] in (self._texts[row].as_py(), self.text(row)):
                rows[position] = row
        return rows


def _rows_by_text(
    plain: NDArray[np.uint64], titled: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Digests [m], ascending, and the row of each, from the digests [n] of the texts without and with their titles."""
    pairs = np.unique(np.stack([plain, titled], axis=1), axis=0)
    texts, titles = np.unique(pairs[:, 0], return_counts=True)
    own = np.flatnonzero(np.isin(plain, texts[titles == 1]))
    every = np.arange(len(titled))
    digests, first = np.unique(np.concatenate([titled, plain[own]]), return_index=True)
    return digests, np.concatenate([every, own])[first]


def _digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Eight bytes of BLAKE2b of each text; lone surrogates, which JSON can carry, are digested too."""
    joined = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, dtype="<u8")
