"""The first stage: what dense and lexical search bring, in one order, filtered by who may read what."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from models.contracts.rows import Candidate
from models.errors import ArtifactError
from models.retrieval.dense_index import DenseIndex
from models.retrieval.embedding import ENCODER, FACTS_FILE
from models.retrieval.fusion import FirstStage, reciprocal_rank_fusion
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.passage_filter import FilterColumns, PassageFilter

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from models.settings import IndexSettings
    from models.store.artifacts import Artifact

_BLOCK = 64
_MASK_BYTES, _MOST_MASKS = 64 * 2**20, 256
"""Of the masks of recent filters, a byte for each passage, as many are kept."""
_PUBLIC = PassageFilter()


class QueryEncoder(Protocol):
    """What the retriever needs of an encoder."""

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Normalized vectors [n, dimensions]."""
        ...


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The candidates of one query, best first, as columns [m], and the rankings that brought them (rows, scores)."""

    rows: NDArray[np.int64]
    retriever_scores: NDArray[np.float64]
    dense_scores: NDArray[np.float32]
    lexical_scores: NDArray[np.float32]
    dense: tuple[NDArray[np.int64], NDArray[np.float32]]
    lexical: tuple[NDArray[np.int64], NDArray[np.float32]]


class HybridRetriever:
    """Retrieves passages by meaning and by words.

    Candidates are all that either search ranks among its best `index.depth`, in the order of `first_stage`; by default
    reciprocal ranks. `passages` has the columns of `read_columns`, row i being row i of both indexes. A passage with
    access labels is returned only to callers who hold one of them.
    """

    def __init__(
        self,
        encoder: QueryEncoder,
        dense: DenseIndex,
        lexical: LexicalIndex,
        passages: pa.Table,
        settings: IndexSettings,
        first_stage: FirstStage | None = None,
    ) -> None:
        self.passage_ids = dense.passage_ids
        self.document_ids = passages["document_id"]
        for name, ids in (("dense", dense.passage_ids), ("lexical", lexical.passage_ids)):
            if not ids.equal(passages["passage_id"]):
                raise ArtifactError(
                    f"The {name} index was built from other passages.", "Materialize the index group again."
                )
        if encoder.dimensions != dense.dimensions:
            raise ArtifactError(
                f"The encoder's vectors have {encoder.dimensions} dimensions, those of the index {dense.dimensions}.",
                "Materialize the index group again with this encoder.",
            )
        self._encoder = encoder
        self._dense = dense
        self._lexical = lexical
        self._depth = settings.depth
        self._rrf_k = settings.rrf_k
        self._first_stage = first_stage or FirstStage(rrf_k=settings.rrf_k)
        self._row_at = np.argsort(self.passage_ids.order)
        masks = min(_MASK_BYTES // max(passages.num_rows, 1), _MOST_MASKS)
        self._mask_of = lru_cache(maxsize=masks)(FilterColumns(passages).mask)

    def ordered_by(self, first_stage: FirstStage) -> HybridRetriever:
        """This retriever, its indexes shared, with another order of the candidates."""
        other = copy.copy(self)
        other._first_stage = first_stage
        return other

    def retrieve(self, query: str, top_k: int, passage_filter: PassageFilter | None = _PUBLIC) -> list[Candidate]:
        """The best `top_k` passages that pass the filter, by default the public ones; `None` lifts it.

        The filter works inside both searches, so that `top_k` is filled whenever that many passages pass.
        """
        retrieval = self.retrieve_batch([query], top_k, passage_filter)[0]
        dense_rows, lexical_rows = set(retrieval.dense[0].tolist()), set(retrieval.lexical[0].tolist())
        return [
            Candidate(
                row=row,
                passage_id=self.passage_ids[row],
                document_id=self.document_ids[row].as_py(),
                rank=rank,
                retriever_score=fused,
                dense_score=dense,
                lexical_score=lexical,
                retriever=_found_by(row in dense_rows, row in lexical_rows),
            )
            for rank, (row, fused, dense, lexical) in enumerate(
                zip(
                    retrieval.rows.tolist(),
                    retrieval.retriever_scores.tolist(),
                    retrieval.dense_scores.tolist(),
                    retrieval.lexical_scores.tolist(),
                    strict=True,
                ),
                start=1,
            )
        ]

    def retrieve_batch(
        self,
        queries: Sequence[str],
        top_k: int,
        passage_filter: PassageFilter | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        vectors: NDArray[np.float32] | None = None,
        depth: int | None = None,
    ) -> list[Retrieval]:
        """Candidates of many queries, for offline use: without a filter unless one is given.

        `vectors` [n, dimensions] are those of `encode`, where they are known already. Both searches go to `depth`, by
        default to `index.depth` or `top_k`, whichever is more; all that they bring is at most twice as much.
        """
        depth = depth or max(self._depth, top_k)
        mask = None if passage_filter is None else self._mask_of(passage_filter)
        results: list[Retrieval] = []
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            known = self.encode(block) if vectors is None else vectors[start : start + _BLOCK]
            known = np.nan_to_num(known, nan=0.0, posinf=0.0, neginf=0.0)  # No direction: words alone order.
            results.extend(self._retrieve_block(block, known, top_k, depth, mask))
            if progress is not None:
                progress(len(results), len(queries))
        return results

    def hybrid(self, retrieval: Retrieval) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A retrieval's two rankings fused by reciprocal ranks, whatever orders its candidates: rows, scores."""
        places, scores = reciprocal_rank_fusion(self._places(retrieval.dense[0], retrieval.lexical[0]), self._rrf_k)
        return self._row_at[places], scores

    def encode(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dimensions] of queries, by the encoder of the passages."""
        return self._encoder.encode_queries(queries)

    def search_dense(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Vector search alone for `vectors` [n, dimensions], without an access filter: rows and scores [n, k]."""
        blocks = [self._dense.search(vectors[start : start + _BLOCK], k) for start in range(0, len(vectors), _BLOCK)]
        rows = np.concatenate([np.empty((0, k), dtype=np.int64), *(rows for rows, _ in blocks)])
        return rows, np.concatenate([np.empty((0, k), dtype=np.float32), *(scores for _, scores in blocks)])

    def search_lexical(self, queries: Sequence[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Word search alone, without an access filter: rows [n, k] and scores [n, k] as of `LexicalIndex.search`."""
        return self._lexical.search(queries, k)

    def _retrieve_block(
        self,
        queries: Sequence[str],
        vectors: NDArray[np.float32],
        top_k: int,
        depth: int,
        mask: NDArray[np.bool_] | None,
    ) -> Iterator[Retrieval]:
        dense_rows, dense_scores = self._dense.search(vectors, depth, mask)
        for number, query in enumerate(queries):
            valid = dense_rows[number] >= 0
            dense = dense_rows[number][valid], dense_scores[number][valid]
            word_scores = self._lexical.scores(query)
            lexical = self._lexical.top(word_scores, depth, mask)
            rankings = self._places(dense[0], lexical[0])
            places = np.unique(np.concatenate(rankings))
            rows = self._row_at[places]
            cosines = self._dense.score(vectors[number : number + 1], rows[None, :])[0]
            scores = self._first_stage.scores(rankings, cosines, word_scores[rows])
            best = np.lexsort((places, -scores))[:top_k]
            yield Retrieval(
                rows=rows[best],
                retriever_scores=scores[best],
                dense_scores=cosines[best],
                lexical_scores=word_scores[rows[best]],
                dense=dense,
                lexical=lexical,
            )

    def _places(self, *rankings: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rankings of rows as rankings of the places that their ids have among all ids, which break ties."""
        return [self.passage_ids.order[rows] for rows in rankings]


def _found_by(meaning: bool, words: bool) -> Literal["dense", "lexical", "hybrid"]:
    if meaning and words:
        return "hybrid"
    return "dense" if meaning else "lexical"


class _LoadedOnDemand:
    """An encoder that is loaded when it first embeds something: who has all vectors need not wait for torch."""

    def __init__(self, folder: Path, max_tokens: int, dimensions: int) -> None:
        self._folder, self._max_tokens, self.dimensions = folder, max_tokens, dimensions

    @cached_property
    def _encoder(self) -> QueryEncoder:
        from models.retrieval.encoder import Encoder

        return Encoder.load(self._folder, self._max_tokens)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        return self._encoder.encode_queries(texts)


def read_columns(passages: Path) -> pa.Table:
    """The columns of passages.parquet that a retriever looks at."""
    import pyarrow.parquet as pq

    return pq.read_table(passages, columns=["passage_id", "document_id", *FilterColumns.NAMES])


def open_retriever(
    passages: Artifact,
    embeddings: Artifact,
    dense: Artifact,
    lexical: Artifact,
    settings: IndexSettings,
    first_stage: FirstStage | None = None,
) -> HybridRetriever:
    """A retriever over the stored indexes of the passages; the encoder of the `embeddings` is loaded by the first query
    without a vector."""
    facts = embeddings.read_json(FACTS_FILE)
    return HybridRetriever(
        _LoadedOnDemand(embeddings.folder / ENCODER, facts["max_tokens"], facts["dimensions"]),
        DenseIndex.load(dense.folder),
        LexicalIndex.load(lexical.folder),
        read_columns(passages.path("passages.parquet")),
        settings,
        first_stage,
    )
