"""Search by vector: FAISS (Douze et al., 2024) over normalized embeddings, with exact scores.

The folder of an index holds all vectors in an exact index, which is searched as it is up to some ten thousand passages
and gives the scores always, and for more passages an approximate one beside it (`models.retrieval.approximate_index`).
Files are memory-mapped: processes on one machine share them, and what no query needs stays on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import ArtifactError
from models.retrieval import approximate_index
from models.retrieval.approximate_index import Approximate, Effort, Kind
from models.retrieval.passage_ids import PassageIds
from models.retrieval.steps import DENSE_INDEX
from models.store.durable_files import canonical_json, link_or_copy, write_atomically

if TYPE_CHECKING:
    import faiss
    from numpy.typing import NDArray

    from models.settings import IndexSettings, Settings
    from models.store.artifacts import Artifact, ArtifactStore
    from models.store.steps import Lookup

INDEX_FILE = "index.faiss"
FACTS_FILE = "index.json"
RECALL_DEPTH = 100

_TIE_MARGIN = 16
_EPSILON = 1e-5
_BLOCK = 64
"""Queries whose candidates are scored together."""

_DOUBLINGS = 5


def make_dense_index(
    store: ArtifactStore, settings: Settings, passages: Artifact, queries: Artifact, passage_embeddings: Artifact
) -> Artifact:
    """The index of the vectors, exact or approximate by their number."""
    rows, dimensions = _vectors(passage_embeddings).shape
    kind = approximate_index.choose_kind(rows, dimensions, settings.index)
    # An exact index has no recall to measure, nor settings.
    exact = kind == "flat"
    return DENSE_INDEX.get_or_create(
        store,
        settings,
        partial(
            index_embeddings,
            passages,
            queries,
            passage_embeddings,
            kind,
            settings.index,
            partial(DENSE_INDEX.previous, store, {}),
        ),
        inputs=(passages, passage_embeddings) if exact else (passages, queries, passage_embeddings),
        outside={"kind": kind},
        values={} if exact else None,
    )


def index_embeddings(
    passages: Artifact,
    queries: Artifact,
    passage_embeddings: Artifact,
    kind: Kind,
    settings: IndexSettings,
    previous: Lookup,
    folder: Path,
) -> dict[str, Any]:
    """`build_index` of the vectors into `folder`; recall is measured on a sample of the corpus' queries."""
    before = previous()

    def query_vectors() -> NDArray[np.float32]:
        from models.corpus.splits import sample_by_hash
        from models.retrieval.encoder import Encoder

        asked = sample_by_hash(queries.read_table("queries.parquet"), settings.recall_queries)
        max_tokens = passage_embeddings.read_json("encoder.json")["max_tokens"]
        return Encoder.load(passage_embeddings.folder / "encoder", max_tokens).encode_queries(asked["text"].tolist())

    return build_index(
        folder,
        _vectors(passage_embeddings),
        passages.read_table("passages.parquet", ["passage_id"])["passage_id"].tolist(),
        kind,
        settings,
        query_vectors,
        previous=before and (before.data_version, before.folder),
    )


def _vectors(passage_embeddings: Artifact) -> NDArray[np.float32]:
    """Memory-mapped [n, d]."""
    return np.load(passage_embeddings.path("embeddings.npy"), mmap_mode="r", allow_pickle=False)


def build(embeddings: NDArray[np.float32]) -> faiss.Index:
    """The exact index over the rows of `embeddings` [n, d]."""
    from models.retrieval.faiss_library import faiss

    index: Any = faiss.IndexFlatIP(int(embeddings.shape[1]))
    index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    return index


def write(folder: Path, embeddings: NDArray[np.float32], passage_ids: Sequence[str]) -> None:
    """Write the exact index: row i of `embeddings` [n, d] is passage i."""
    from models.retrieval.faiss_library import faiss

    _check_rows(len(embeddings), passage_ids)
    folder.mkdir(parents=True, exist_ok=True)
    faiss.write_index(build(embeddings), str(folder / INDEX_FILE))
    PassageIds.of(passage_ids).save(folder)
    write_atomically(folder / FACTS_FILE, canonical_json({"kind": "flat"}))


def build_index(
    folder: Path,
    embeddings: NDArray[np.float32],
    passage_ids: Sequence[str],
    kind: Kind,
    settings: IndexSettings,
    queries: Callable[[], NDArray[np.float32]],
    previous: tuple[str, Path] | None = None,
) -> dict[str, Any]:
    """Write an index of `kind`; return its facts and sizes.

    An approximate one gets the effort that `index.min_recall` takes, measured on what `queries` returns, [m, d].
    `previous` is the version and the folder of an index over another version of the corpus: it is carried on while
    few passages changed.
    """
    write(folder, embeddings, passage_ids)
    facts: dict[str, Any] = {"kind": kind, "recall": 1.0}
    if kind != "flat":
        asked = queries()
        if not len(asked):  # passages stand in for queries where there are none
            asked = embeddings[:: max(len(embeddings) // settings.recall_queries, 1)]
        facts = _write_approximate(folder, kind, settings, asked, previous)
        write_atomically(folder / FACTS_FILE, canonical_json(facts))
    files = [path for path in folder.iterdir() if path.suffix == ".faiss"]
    shown = {name: value for name, value in facts.items() if isinstance(value, int | float | str)}
    return {
        "dagster/row_count": len(passage_ids),
        **shown,
        **facts.get("effort", {}),
        "carried": facts.get("base") is not None,
        "bytes": sum(path.stat().st_size for path in files),
    }


def _write_approximate(
    folder: Path, kind: Kind, settings: IndexSettings, queries: NDArray[np.float32], previous: tuple[str, Path] | None
) -> dict[str, Any]:
    from models.retrieval.faiss_library import faiss

    exact = DenseIndex.load(folder)
    parameters = approximate_index.build_parameters(kind, settings)
    carried = None if previous is None else _carry(exact, *previous, parameters, settings.max_delta_share)
    if carried is None:
        rows, base = np.arange(len(exact), dtype=np.int64), None
        index = approximate_index.build(kind, exact.vectors(), settings)
        faiss.write_index(index, str(folder / approximate_index.INDEX_FILE))
    else:
        source, rows, base = carried
        link_or_copy(source, folder / approximate_index.INDEX_FILE)
    np.save(folder / approximate_index.ROWS_FILE, rows, allow_pickle=False)
    index = _read(folder / approximate_index.INDEX_FILE)
    start = Effort(settings.hnsw_ef_search, settings.ivf_probes, settings.rescore)
    approximate = Approximate(index, kind, rows, len(exact), start)
    # Half of what the setting leaves open is the margin for other queries than these.
    effort, reached = _tune(exact.with_approximate(approximate), queries, (1 + settings.min_recall) / 2)
    return {
        "kind": kind,
        "parameters": parameters,
        "effort": asdict(effort),
        "recall": reached,
        "recall_queries": len(queries),
        "base": base,
        "tombstones": approximate.tombstones,
        "additions": approximate.additions,
    }


def read_facts(folder: Path) -> dict[str, Any]:
    """What index.json says: the kind and, of an approximate one, its effort, recall and how far it was carried on."""
    return json.loads((folder / FACTS_FILE).read_bytes())


class DenseIndex:
    """Passages by cosine similarity. Results of equal score are ordered by passage id."""

    def __init__(self, index: faiss.Index, passage_ids: Sequence[str], approximate: Approximate | None = None) -> None:
        _check_rows(index.ntotal, passage_ids)
        self._index: Any = index
        self._approximate = approximate
        self.passage_ids = PassageIds.of(passage_ids)

    @classmethod
    def load(cls, folder: Path) -> DenseIndex:
        """Open what was written, memory-mapped. Raises `ArtifactError` when files are missing or do not fit."""
        index = _read(folder / INDEX_FILE)
        try:
            ids, facts = PassageIds.load(folder), read_facts(folder)
        except FileNotFoundError as error:
            raise _missing(Path(error.filename)) from error
        if facts["kind"] == "flat":
            return cls(index, ids)
        rows_file = folder / approximate_index.ROWS_FILE
        if not rows_file.is_file():
            raise _missing(rows_file)
        approximate = Approximate(
            _read(folder / approximate_index.INDEX_FILE),
            facts["kind"],
            np.load(rows_file, allow_pickle=False),
            len(ids),
            Effort(**facts["effort"]),
        )
        return cls(index, ids, approximate)

    def with_approximate(self, approximate: Approximate) -> DenseIndex:
        """The same passages, searched through `approximate`."""
        return DenseIndex(self._index, self.passage_ids, approximate)

    def __len__(self) -> int:
        return len(self.passage_ids)

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return int(self._index.d)

    @property
    def kind(self) -> Kind:
        """How it is searched."""
        return "flat" if self._approximate is None else self._approximate.kind

    @property
    def effort(self) -> Effort | None:
        """Effort of a search that is asked for none; None for an exact index."""
        return None if self._approximate is None else self._approximate.effort

    def vectors(self) -> NDArray[np.float32]:
        """The embeddings [n, d], row i of passage i; read-only and memory-mapped where the index is."""
        from models.retrieval.faiss_library import faiss

        count, dimensions = len(self), self.dimensions
        if not count:
            return np.empty((0, dimensions), dtype=np.float32)
        flat = faiss.rev_swig_ptr(self._index.get_xb(), count * dimensions).reshape(count, dimensions)
        flat.flags.writeable = False
        return flat

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        *,
        effort: Effort | None = None,
        exact: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [n, k] and scores [n, k] for `queries` [n, d], best first; where there are fewer, row -1 and score -inf.

        `allowed` [size] limits the search to the rows that are true. An approximate index may miss passages, the fewer
        the greater the `effort`; it never returns fewer than there are, nor another score than the exact one. `exact`
        looks at every passage.
        """
        size = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if self._approximate is None or exact or not self._approximate.worth_it(size):
            return self._search_exactly(queries, k, allowed, size)
        rows = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        for start in range(0, len(queries), _BLOCK):
            block = slice(start, start + _BLOCK)
            rows[block], scores[block] = self._search_approximately(
                self._approximate, queries[block], k, allowed, effort or self._approximate.effort
            )
        short = np.flatnonzero(np.count_nonzero(rows >= 0, axis=1) < min(k, size))
        rows[short], scores[short] = self._search_exactly(queries[short], k, allowed, size)
        return rows, scores

    def score(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Cosine similarities [n, m] of `queries` [n, d] with the passages at `rows` [n, m]; -inf at row -1."""
        vectors = self._index.reconstruct_batch(np.maximum(rows, 0).reshape(-1)).reshape(*rows.shape, self.dimensions)
        # Double precision, rounded: equal vectors get equal scores, whatever the order of the additions.
        scores = np.einsum("nmd,nd->nm", vectors.astype(np.float64), queries.astype(np.float64)).astype(np.float32)
        return np.where(rows >= 0, scores, np.float32(-np.inf))

    def _search_approximately(
        self,
        approximate: Approximate,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        effort: Effort,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        nearest = approximate.nearest(queries, max(k * effort.rescore, k + _TIE_MARGIN), allowed, effort)
        if approximate.has_added:
            added = approximate.added if allowed is None else approximate.added & allowed
            wanted = min(k + _TIE_MARGIN, int(np.count_nonzero(added)))
            if wanted:
                nearest = np.concatenate([nearest, self._nearest(queries, wanted, added)], axis=1)
        rows, scores = self._ranked(queries, nearest)
        return rows[:, :k], scores[:, :k]

    def _search_exactly(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The scores are those of `score`: FAISS's own differ in the last bit with the number of queries searched
        together, which would make the order of equal passages chance."""
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        pending = np.arange(len(queries))
        fetch = k + _TIE_MARGIN
        while len(pending) and size:
            ranked, exact = self._ranked(queries[pending], self._nearest(queries[pending], min(fetch, size), allowed))
            kept = min(k, size)
            last = exact[:, -1]
            tied_beyond = (last >= exact[:, kept - 1] - _EPSILON) & np.isfinite(last) & (fetch < size)
            settled = pending[~tied_beyond]
            rows[settled, :kept], scores[settled, :kept] = ranked[~tied_beyond, :kept], exact[~tied_beyond, :kept]
            pending = pending[tied_beyond]
            fetch *= 4
        return rows, scores

    def _ranked(
        self, queries: NDArray[np.float32], nearest: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`found` [n, m] and its scores, best first, equal ones by id, rows of -1 last."""
        exact = self.score(queries, nearest)
        order = np.lexsort((self.passage_ids.order[nearest], -exact), axis=-1)
        return np.take_along_axis(nearest, order, axis=-1), np.take_along_axis(exact, order, axis=-1)

    def _nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        from models.retrieval.faiss_library import faiss

        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if allowed is None:
            return self._index.search(queries, k)[1]
        bits = np.packbits(allowed, bitorder="little")
        parameters: Any = faiss.SearchParameters
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        return self._index.search(queries, k, params=parameters(sel=selector))[1]


def recall(
    index: DenseIndex,
    queries: NDArray[np.float32],
    effort: Effort | None = None,
    worst: NDArray[np.float32] | None = None,
) -> float:
    """Mean share of the exact best 100 that the index finds, over `queries` [n, d].

    A passage as good as the last of them counts: which of equal passages are found says nothing. `worst` [n, 1] are
    the scores of the last, as of `worst_of_best`, where they are known.
    """
    k = min(RECALL_DEPTH, len(index))
    if not k or not len(queries):
        return 1.0
    _, scores = index.search(queries, k, effort=effort)
    return float(np.mean(scores >= (worst_of_best(index, queries) if worst is None else worst)))


def worst_of_best(index: DenseIndex, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score [n, 1] of the last of the exact best 100 for each of `queries` [n, d]: it takes a scan."""
    return index.search(queries, min(RECALL_DEPTH, len(index)), exact=True)[1][:, -1:]


def _tune(index: DenseIndex, queries: NDArray[np.float32], target: float) -> tuple[Effort, float]:
    """The least of a few efforts, each twice the last, whose recall reaches `target`, else the last; and its recall."""
    effort, worst = index.effort or Effort(), worst_of_best(index, queries)
    reached = recall(index, queries, effort, worst)
    for _ in range(_DOUBLINGS):
        if reached >= target:
            break
        effort = effort.doubled(index.kind)
        reached = recall(index, queries, effort, worst)
    return effort, reached


def _carry(
    exact: DenseIndex, version: str, folder: Path, parameters: Mapping[str, Any], max_share: float
) -> tuple[Path, NDArray[np.int64], str] | None:
    """File, rows and version of the index in `folder`, for the passages of `exact`; None when one must be built."""
    facts = read_facts(folder)
    if facts.get("parameters") != parameters:
        return None
    before = DenseIndex.load(folder)
    rows = np.load(folder / approximate_index.ROWS_FILE, allow_pickle=False)
    carried = approximate_index.carried_rows(
        rows, (before.passage_ids, before.vectors()), (exact.passage_ids, exact.vectors())
    )
    if approximate_index.changed_share(carried, len(exact)) > max_share:
        return None
    return folder / approximate_index.INDEX_FILE, carried, facts["base"] or version


def _read(path: Path) -> Any:
    from models.retrieval.faiss_library import faiss

    if not path.is_file():
        raise _missing(path)
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def _missing(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is missing.", "Materialize index/dense_index again.")


def _check_rows(count: int, passage_ids: Sequence[str]) -> None:
    if count != len(passage_ids):
        raise ArtifactError(
            f"The index has {count} vectors for {len(passage_ids)} passage ids.", "Materialize the index group again."
        )
