"""Approximate nearest neighbours for corpora that are too large to scan: HNSW or IVF-PQ (FAISS; Douze et al., 2024).

HNSW is a graph that a search walks (Malkov and Yashunin, 2018), its vectors in 8 bits per dimension where asked. IVF-PQ
reads a few of many lists of vectors in a few bytes each (Jégou et al., 2011): far smaller, and slower to be as good.

An index outlives the corpus version that it was built for. Passages that left are tombstones: rows of the index that
stand for no passage. Passages that came are searched in full beside it. When both together exceed a share of the index
it is built anew. The files of the index itself are shared between versions by hard links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.errors import ArtifactError

if TYPE_CHECKING:
    import faiss
    from numpy.typing import NDArray

    from models.settings import IndexSettings

Kind = Literal["flat", "hnsw", "ivf_pq"]

INDEX_FILE = "approximate.faiss"
ROWS_FILE = "approximate_rows.npy"

_SMALLEST = 1024
_BLOCK = 65_536
_TRAINING_ROWS = 262_144
_POINTS_PER_LIST = 39
"""FAISS asks for as many to train a list."""

_SCAN = 20_000
"""Distances in the time of one graph search, roughly; see `Approximate.worth_it`."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard an approximate search tries: more finds more, and takes longer."""

    ef: int = 64
    """Candidates that HNSW keeps while it walks."""

    probes: int = 16
    """Lists that IVF-PQ reads."""

    rescore: int = 2
    """Candidates that get their exact score, per passage asked for."""

    def wider(self, factor: float) -> Effort:
        """`factor` times as long a walk, or as many lists."""
        return Effort(ceil(self.ef * factor), ceil(self.probes * factor), self.rescore)

    def doubled(self, kind: Kind) -> Effort:
        """Twice as much of what `kind` is short of: the coarse codes of IVF-PQ also need more candidates rescored."""
        return Effort(2 * self.ef, 2 * self.probes, (2 if kind == "ivf_pq" else 1) * self.rescore)


class Approximate:
    """A FAISS index whose row i is passage `rows[i]`, or none at -1, in a corpus of `size` passages."""

    def __init__(self, index: faiss.Index, kind: Kind, rows: NDArray[np.int64], size: int, effort: Effort) -> None:
        if index.ntotal != len(rows):
            raise ArtifactError(
                f"{INDEX_FILE} has {index.ntotal} vectors for {len(rows)} rows.", "Materialize index/dense_index again."
            )
        self._index: Any = index
        self.kind: Kind = kind
        self.rows = rows
        self.effort = effort
        self._size = size
        self._live = rows >= 0
        self._has_tombstones = not self._live.all()
        self._in_order = len(rows) == size and bool((rows == np.arange(size)).all())
        self.added = np.ones(size, dtype=bool)
        self.added[rows[self._live]] = False
        self.has_added = bool(self.added.any())

    @property
    def tombstones(self) -> int:
        """Rows that stand for no passage any more."""
        return int(np.count_nonzero(~self._live))

    @property
    def additions(self) -> int:
        """Passages that are not in the index."""
        return int(np.count_nonzero(self.added))

    def worth_it(self, readable: int) -> bool:
        """Whether a search among `readable` passages, fewer than there are, is faster here than by looking at all.

        To meet enough readable passages the walk must be longer by the inverse of their share; a scan is shorter by it.
        """
        return readable == self._size or readable * readable > _SCAN * self._size

    def nearest(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None, effort: Effort | None = None
    ) -> NDArray[np.int64]:
        """At most `count` rows of the corpus for each of `queries` [n, d], in no order that counts; -1 for none.

        `allowed` [size] limits them to the rows that are true. Passages that were added are not among them.
        """
        from models.retrieval.faiss_library import faiss

        effort, count = effort or self.effort, min(count, len(self.rows))
        selected = self._live if self._has_tombstones else None
        if allowed is not None:
            effort = effort.wider(len(allowed) / max(np.count_nonzero(allowed), 1))
            selected = allowed if self._in_order else self._live & allowed[self.rows]
        options: dict[str, Any] = {}
        bits = None
        if selected is not None:
            bits = np.packbits(selected, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(len(selected), faiss.swig_ptr(bits))
        library: Any = faiss  # its stubs know neither the parameters nor their names
        if self.kind == "hnsw":
            parameters = library.SearchParametersHNSW(efSearch=max(min(effort.ef, len(self.rows)), count), **options)
        else:
            parameters = library.SearchParametersIVF(nprobe=min(effort.probes, self._index.nlist), **options)
        labels = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), count, params=parameters)[1]
        return np.where(labels >= 0, self.rows[labels], -1)


def choose_kind(count: int, dimensions: int, settings: IndexSettings) -> Kind:
    """The kind that the settings name; for `auto` the most exact one that is fast enough and fits into memory.

    Fewer than 1,024 passages are scanned whatever the settings say: codes cannot be trained on them.
    """
    if count < _SMALLEST:
        return "flat"
    if settings.kind != "auto":
        return settings.kind
    budget = settings.max_memory_mb * 2**20
    if count <= settings.flat_max_passages and memory_bytes("flat", count, dimensions, settings) <= budget:
        return "flat"
    return "hnsw" if memory_bytes("hnsw", count, dimensions, settings) <= budget else "ivf_pq"


def memory_bytes(kind: Kind, count: int, dimensions: int, settings: IndexSettings) -> int:
    """Bytes that a search of an index touches, estimated from its parameters.

    The exact vectors, of which approximate kinds read a few per query, stay on disk.
    """
    if kind == "flat":
        return 4 * count * dimensions
    if kind == "hnsw":
        code = dimensions if settings.hnsw_sq8 else 4 * dimensions
        return count * (code + 4 * 2 * settings.hnsw_m + 16)
    return count * (pq_bytes(dimensions, settings) + 8) + 4 * dimensions * (list_count(count, settings) + 256)


def list_count(count: int, settings: IndexSettings) -> int:
    """Lists of IVF-PQ: as set, by default 4 times the root of the passages, and no more than they can train."""
    wanted = settings.ivf_lists or ceil(4 * sqrt(count))
    return max(min(wanted, count // _POINTS_PER_LIST), 1)


def pq_bytes(dimensions: int, settings: IndexSettings) -> int:
    """Bytes of a code: the largest number up to the setting that divides the dimensions."""
    return max(size for size in range(1, min(settings.ivf_pq_bytes, dimensions) + 1) if dimensions % size == 0)


def build_parameters(kind: Kind, settings: IndexSettings) -> dict[str, Any]:
    """The settings that an index of this kind is built with: with others it is built anew."""
    names = {
        "flat": (),
        "hnsw": ("hnsw_m", "hnsw_ef_construction", "hnsw_sq8"),
        "ivf_pq": ("ivf_lists", "ivf_pq_bytes"),
    }
    return {"kind": kind, **{name: getattr(settings, name) for name in names[kind]}}


def build(kind: Kind, vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """An index of `vectors` [n, d]. The same vectors and settings give the same bytes: it is built by one thread."""
    from models.retrieval.faiss_library import faiss

    count, dimensions = vectors.shape
    index: Any
    if kind == "hnsw" and settings.hnsw_sq8:
        bits: Any = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(dimensions, bits, settings.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimensions, settings.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    else:
        # np: codes need no order in which near ones look alike, which takes longer to find than all the rest.
        described = f"IVF{list_count(count, settings)},PQ{pq_bytes(dimensions, settings)}np"
        index = faiss.index_factory(dimensions, described, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = settings.hnsw_ef_construction
    every = ceil(count / _TRAINING_ROWS)
    with one_thread():
        index.train(np.ascontiguousarray(vectors[::every]))
        for start in range(0, count, _BLOCK):
            index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    return index


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS works in the calling thread alone: several threads build another graph every time."""
    from models.retrieval.faiss_library import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def carried_rows(
    rows: NDArray[np.int64],
    old: tuple[Sequence[str], NDArray[np.float32]],
    new: tuple[Sequence[str], NDArray[np.float32]],
) -> NDArray[np.int64]:
    """`rows` of an index over an old corpus as rows of the new one; a passage that left or changed becomes -1.

    Both corpora are (passage ids [n], vectors [n, d]). Passages are the same by their id and every bit of their vector.
    """
    row_of = {name: row for row, name in enumerate(new[0])}
    moved = np.array([row_of.get(name, -1) for name in old[0]], dtype=np.int64)
    for start in range(0, len(moved), _BLOCK):
        targets = moved[start : start + _BLOCK]
        kept = np.flatnonzero(targets >= 0)
        same = (old[1][start : start + _BLOCK][kept] == new[1][targets[kept]]).all(axis=1)
        targets[kept[~same]] = -1
    return np.where(rows >= 0, moved[rows] if len(moved) else -1, -1)


def changed_share(rows: NDArray[np.int64], size: int) -> float:
    """Tombstones and additions of an index whose rows stand for `rows`, as a share of it."""
    live = int(np.count_nonzero(rows >= 0))
    return (len(rows) - live + size - live) / max(len(rows), 1)
