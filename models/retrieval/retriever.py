"""The first stage: dense and lexical search fused by reciprocal rank, filtered by who may read what."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from models.errors import ArtifactError
from models.retrieval.approximate_index import Effort
from models.retrieval.dense_index import DenseIndex
from models.retrieval.embedding import ENCODER, FACTS_FILE
from models.retrieval.fusion import reciprocal_rank_fusion
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.string_column import StringColumn

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from models.settings import IndexSettings

_BLOCK = 64
_CALLERS_REMEMBERED = 256


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
class SearchParameters:
    """How one call searches, where it is not as the index and the settings say."""

    effort: Effort | None = None
    """Of an approximate vector search; by default the one with which its recall was measured."""

    dense_depth: int | None = None
    """Passages that the vector search puts into the fusion, 0 to leave it out; by default `index.depth`."""

    lexical_depth: int | None = None
    """Passages that the word search puts into the fusion, 0 to leave it out; by default `index.depth`."""

    rrf_k: int | None = None
    """Constant of the fusion; by default `index.rrf_k`."""


AS_SET = SearchParameters()


@dataclass(frozen=True, slots=True)
class RetrievedPassage:
    """A candidate: its place in the fused list and both first-stage scores; `row` is its row in the passages table."""

    passage_id: str
    document_id: str
    rank: int
    retriever_score: float
    dense_score: float
    lexical_score: float
    retriever: Literal["dense", "lexical", "hybrid"]
    row: int


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The candidates of one query, best first, as columns [m], and the two rankings that were fused (rows, scores)."""

    rows: NDArray[np.int64]
    retriever_scores: NDArray[np.float64]
    dense_scores: NDArray[np.float32]
    lexical_scores: NDArray[np.float32]
    dense: tuple[NDArray[np.int64], NDArray[np.float32]]
    lexical: tuple[NDArray[np.int64], NDArray[np.float32]]


class HybridRetriever:
    """Retrieves passages by meaning and by words.

    `passages` has the columns `passage_id`, `document_id` and `access`, row i being row i of both indexes. A passage
    with access labels is returned only to callers who hold one of them.
    """

    def __init__(
        self,
        encoder: QueryEncoder,
        dense: DenseIndex,
        lexical: LexicalIndex,
        passages: pd.DataFrame,
        settings: IndexSettings,
    ) -> None:
        self.passage_ids = dense.passage_ids
        self.document_ids = StringColumn.of(passages["document_id"])
        wanted = StringColumn.of(passages["passage_id"])
        for name, ids in (("dense", dense.passage_ids), ("lexical", lexical.passage_ids)):
            if ids != wanted:
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
        self._settings = settings
        self._place = self.passage_ids.places
        self._row_at = np.argsort(self._place)
        self._public, self._labelled = _access_masks(passages["access"].tolist())
        self._readable_by = lru_cache(maxsize=_CALLERS_REMEMBERED)(self._readable)

    def retrieve(
        self,
        query: str,
        top_k: int,
        allowed: Collection[str] | None = frozenset(),
        parameters: SearchParameters = AS_SET,
    ) -> list[RetrievedPassage]:
        """The best `top_k` passages for a caller who holds the labels `allowed`; `None` lifts the access filter.

        Without labels only public passages are returned. The filter works inside both searches, so that `top_k` is
        filled whenever that many readable passages exist. `parameters` are those of both searches for this call.
        """
        found = self.retrieve_batch([query], top_k, allowed, parameters=parameters)[0]
        by_meaning, by_words = set(found.dense[0].tolist()), set(found.lexical[0].tolist())
        return [
            RetrievedPassage(
                passage_id=self.passage_ids[row],
                document_id=self.document_ids[row],
                rank=rank,
                retriever_score=fused,
                dense_score=dense,
                lexical_score=lexical,
                retriever=_found_by(row in by_meaning, row in by_words),
                row=row,
            )
            for rank, (row, fused, dense, lexical) in enumerate(
                zip(
                    found.rows.tolist(),
                    found.retriever_scores.tolist(),
                    found.dense_scores.tolist(),
                    found.lexical_scores.tolist(),
                    strict=True,
                ),
                start=1,
            )
        ]

    def retrieve_batch(
        self,
        queries: Sequence[str],
        top_k: int,
        allowed: Collection[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        vectors: NDArray[np.float32] | None = None,
        parameters: SearchParameters = AS_SET,
    ) -> list[Retrieval]:
        """Candidates of many queries, for offline use: without an access filter unless `allowed` is given.

        `vectors` [n, dimensions] are those of `encode`, where they are known already.
        """
        readable = None if allowed is None else self._readable_by(frozenset(allowed))
        results: list[Retrieval] = []
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            known = self.encode(block) if vectors is None else vectors[start : start + _BLOCK]
            results.extend(self._retrieve_block(block, known, top_k, readable, parameters))
            if progress is not None:
                progress(len(results), len(queries))
        return results

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
        readable: NDArray[np.bool_] | None,
        parameters: SearchParameters,
    ) -> Iterator[Retrieval]:
        default = max(self._settings.depth, top_k)
        dense_depth = default if parameters.dense_depth is None else parameters.dense_depth
        lexical_depth = default if parameters.lexical_depth is None else parameters.lexical_depth
        rrf_k = self._settings.rrf_k if parameters.rrf_k is None else parameters.rrf_k
        dense_rows, dense_scores = self._search_dense(vectors, dense_depth, readable, parameters.effort)
        for place, query in enumerate(queries):
            found = dense_rows[place] >= 0
            dense = dense_rows[place][found], dense_scores[place][found]
            word_scores = self._lexical.scores(query)
            lexical = self._lexical.top(word_scores, lexical_depth, readable)
            places, fused = reciprocal_rank_fusion([self._place[dense[0]], self._place[lexical[0]]], rrf_k)
            rows = self._row_at[places[:top_k]]
            yield Retrieval(
                rows=rows,
                retriever_scores=fused[:top_k],
                dense_scores=self._dense.score(vectors[place : place + 1], rows[None, :])[0],
                lexical_scores=word_scores[rows],
                dense=dense,
                lexical=lexical,
            )

    def _search_dense(
        self, vectors: NDArray[np.float32], depth: int, readable: NDArray[np.bool_] | None, effort: Effort | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if not depth:
            return np.empty((len(vectors), 0), dtype=np.int64), np.empty((len(vectors), 0), dtype=np.float32)
        return self._dense.search(vectors, depth, readable, effort=effort)

    def _readable(self, labels: frozenset[str]) -> NDArray[np.bool_] | None:
        """Which rows [size] are public or carry one of `labels`; None for all, which is searched faster."""
        masks = [self._labelled[label] for label in labels if label in self._labelled]
        readable = np.logical_or.reduce([self._public, *masks])
        return None if readable.all() else readable


def _found_by(meaning: bool, words: bool) -> Literal["dense", "lexical", "hybrid"]:
    if meaning and words:
        return "hybrid"
    return "dense" if meaning else "lexical"


def _access_masks(access: Sequence[Collection[str]]) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Which rows are public, and which rows each label opens."""
    labels_of = [tuple(labels) for labels in access]
    public = np.array([not labels for labels in labels_of], dtype=bool)
    labelled: dict[str, NDArray[np.bool_]] = {}
    for row, labels in enumerate(labels_of):
        for label in labels:
            labelled.setdefault(label, np.zeros(len(labels_of), dtype=bool))[row] = True
    return public, labelled


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


def open_retriever(
    passages: pd.DataFrame, *, embeddings: Path, dense: Path, lexical: Path, settings: IndexSettings
) -> HybridRetriever:
    """A retriever over stored indexes; `passages` has `passage_id`, `document_id` and `access`.

    `embeddings` is the folder of `models.retrieval.embedding`, whose encoder is loaded by the first query without a
    vector.
    """
    facts = json.loads((embeddings / FACTS_FILE).read_bytes())
    return HybridRetriever(
        _LoadedOnDemand(embeddings / ENCODER, facts["max_tokens"], facts["dimensions"]),
        DenseIndex.load(dense),
        LexicalIndex.load(lexical),
        passages,
        settings,
    )
