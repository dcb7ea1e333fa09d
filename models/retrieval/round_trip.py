"""Written queries that find their own document: a language model writes, word search looks, while a corpus is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from models.contracts.rows import WRITTEN
from models.corpus.passage_table import PassageTable
from models.corpus.reading import Writing
from models.corpus.written_queries import write_queries
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.steps import QUERY_WRITING
from models.settings import IndexSettings
from models.store.durable_files import digest_json
from models.text.passage_text import passage_text

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import ArtifactStore

_DIGITS = 12


def query_writing(store: ArtifactStore, settings: Settings, log: Callable[[str], None]) -> Writing | None:
    """What writes queries for a corpus, where the settings want such ones."""
    if WRITTEN not in settings.training.pseudo_kinds or settings.training.pseudo_queries == "off":
        return None
    retrieve = partial(first_documents, settings.index)
    version = digest_json([QUERY_WRITING.code_version, QUERY_WRITING.values(settings)])[:_DIGITS]
    return Writing(version, partial(write_queries, store, settings.query_writer, retrieve, log))


def first_documents(
    settings: IndexSettings, passages: PassageTable, queries: Sequence[str], count: int
) -> list[list[str]]:
    """The documents of the `count` best passages of each query by BM25 over all passages, best first."""
    ids: list[str] = []
    documents: list[str] = []
    for _, rows in passages.stream(["document_id"]):
        ids += rows["passage_id"].tolist()
        documents += rows["document_id"].tolist()
    texts = (
        passage_text(str(row.title), str(row.text))
        for _, rows in passages.stream(["title", "text"])
        for row in rows.itertuples(index=False)
    )
    index = LexicalIndex.build(texts, ids, settings.bm25_k1, settings.bm25_b, settings.languages)
    best, _ = index.search(queries, count)
    return [list(dict.fromkeys(documents[row] for row in rows if row >= 0)) for rows in best.tolist()]
