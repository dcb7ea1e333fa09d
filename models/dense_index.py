"""Search by vector: an exact inner-product index (FAISS; Douze et al., 2024) over normalized embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import ArtifactError
from models.files import canonical_json, write_atomically

if TYPE_CHECKING:
    import faiss
    from numpy.typing import NDArray

INDEX_FILE = "index.faiss"
IDS_FILE = "passage_ids.json"

_TIE_MARGIN = 16
_EPSILON = 1e-5


def build(embeddings: NDArray[np.float32]) -> faiss.Index:
    """A FAISS index over the rows of `embeddings` [n, d]; the one place to change for an approximate index.

    Whatever it returns must reconstruct its vectors (an IVF index needs its direct map).
    """
    import faiss

    index: Any = faiss.IndexFlatIP(int(embeddings.shape[1]))
    index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    return index


def write(folder: Path, embeddings: NDArray[np.float32], passage_ids: Sequence[str]) -> None:
    """Write `index.faiss` and `passage_ids.json`, row i of the one being id i of the other."""
    import faiss

    _check_rows(len(embeddings), passage_ids)
    folder.mkdir(parents=True, exist_ok=True)
    faiss.write_index(build(embeddings), str(folder / INDEX_FILE))
    write_atomically(folder / IDS_FILE, canonical_json(list(passage_ids)))


class DenseIndex:
    """Passages by cosine similarity. Results of equal score are ordered by passage id."""

    def __init__(self, index: faiss.Index, passage_ids: Sequence[str]) -> None:
        _check_rows(index.ntotal, passage_ids)
        self._index: Any = index
        self.passage_ids = tuple(passage_ids)
        self._place = id_places(passage_ids)

    @classmethod
    def load(cls, folder: Path) -> DenseIndex:
        """Open what `write` wrote, memory-mapped where FAISS can. Raises `ArtifactError` when files are missing."""
        import faiss

        for name in (INDEX_FILE, IDS_FILE):
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder / name} is missing.", "Materialize index/dense_index again.")
        ids = json.loads((folder / IDS_FILE).read_text(encoding="utf-8"))
        return cls(faiss.read_index(str(folder / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC), ids)

    def __len__(self) -> int:
        return len(self.passage_ids)

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return int(self._index.d)

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [n, k] and scores [n, k] for `queries` [n, d], best first; where there are fewer, row -1 and score -inf.

        `allowed` [size] limits the search to the rows that are true. Scores are those of `score`: FAISS's own differ in
        the last bit with the number of queries searched together, which would make the order of equal passages chance.
        """
        size = len(self) if allowed is None else int(np.count_nonzero(allowed))
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        pending = np.arange(len(queries))
        fetch = k + _TIE_MARGIN
        while len(pending) and size:
            found = self._nearest(queries[pending], min(fetch, size), allowed)
            exact = self.score(queries[pending], found)
            order = np.lexsort((self._place[found], -exact), axis=-1)
            found, exact = np.take_along_axis(found, order, axis=-1), np.take_along_axis(exact, order, axis=-1)
            kept = min(k, size)
            last = exact[:, -1]
            tied_beyond = (last >= exact[:, kept - 1] - _EPSILON) & np.isfinite(last) & (fetch < size)
            settled = pending[~tied_beyond]
            rows[settled, :kept], scores[settled, :kept] = found[~tied_beyond, :kept], exact[~tied_beyond, :kept]
            pending = pending[tied_beyond]
            fetch *= 4
        return rows, scores

    def score(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Cosine similarities [n, m] of `queries` [n, d] with the passages at `rows` [n, m]; -inf at row -1."""
        vectors = self._index.reconstruct_batch(np.maximum(rows, 0).reshape(-1)).reshape(*rows.shape, self.dimensions)
        # Double precision, rounded: equal vectors get equal scores, whatever the order of the additions.
        scores = np.einsum("nmd,nd->nm", vectors.astype(np.float64), queries.astype(np.float64)).astype(np.float32)
        return np.where(rows >= 0, scores, np.float32(-np.inf))

    def _nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        import faiss

        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if allowed is None:
            return self._index.search(queries, k)[1]
        bits = np.packbits(allowed, bitorder="little")
        parameters: Any = faiss.SearchParameters
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        return self._index.search(queries, k, params=parameters(sel=selector))[1]


def id_places(ids: Sequence[str]) -> NDArray[np.int64]:
    """The place of each id in the sorted list of ids: what equal scores are ordered by."""
    places = np.empty(len(ids), dtype=np.int64)
    places[np.argsort(np.asarray(ids, dtype=object), kind="stable")] = np.arange(len(ids))
    return places


def _check_rows(count: int, passage_ids: Sequence[str]) -> None:
    if count != len(passage_ids):
        raise ArtifactError(
            f"The index has {count} vectors for {len(passage_ids)} passage ids.", "Materialize the index group again."
        )
