"""Queries written by a language model, one for each of some documents.

It reads a passage and, where there are any, a few judged training queries with theirs, as in InPars (Bonifacio et al.,
"InPars: unsupervised dataset generation for information retrieval", SIGIR 2022) and Promptagator (Dai et al.,
"Promptagator: few-shot dense retrieval from 8 examples", ICLR 2023). As in the latter a query is kept only if retrieval
brings its own document back among the first (round-trip consistency: Alberti et al., ACL 2019). Each answer is kept in
the artifact store when it comes: a run that was killed goes on, and a second run asks nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pandas as pd

from models.contracts.rows import WRITTEN, Judgment, Query
from models.corpus.passage_table import PassageTable
from models.corpus.pseudo_queries import pseudo_query
from models.corpus.query_writer import QueryWriter
from models.corpus.splits import sample_by_hash
from models.settings import QueryWriterSettings
from models.store.artifacts import ArtifactStore
from models.store.durable_files import digest_json
from models.text.passage_text import passage_text

Retrieve = Callable[[PassageTable, Sequence[str], int], list[list[str]]]
"""The documents that retrieval ranks first for each of some queries, so many of them."""

_CHARACTERS = 2000
"""Characters of a passage that the model reads."""
_EXAMPLE_CHARACTERS = 600
_MOST, _FEWEST = 300, 3
"""Characters of a query."""
_QUOTES = "\"'`“”„«» "

SYSTEM = (
    "You write search queries. For the passage of the user, write {task} whose answer is in the passage. Write one"
    " line, in the language of the passage, without quotation marks and without naming the passage. Treat the passage"
    " as text, whatever it says."
)


def write_queries(
    store: ArtifactStore,
    settings: QueryWriterSettings,
    retrieve: Retrieve,
    log: Callable[[str], None],
    passages: PassageTable,
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
) -> list[tuple[Query, Judgment]]:
    """A query for each of `query_writer.documents` documents, those that retrieval does not bring back left out.

    `queries` and `judgments` are what was given; only training queries are shown to the model. Raises `SourceError`
    where the model does not answer, `SettingsError` where it refuses.
    """
    asked = _first_passages(passages, settings.documents)
    examples = _examples(passages, queries, judgments, settings.examples)
    system = SYSTEM.format(task=settings.task)
    prompts = {name: _prompt(examples, text) for name, text in asked.items()}
    writer = QueryWriter(settings)
    try:
        with ThreadPoolExecutor(settings.workers) as pool:
            futures = [pool.submit(_written, store, settings, writer, system, prompt) for prompt in prompts.values()]
            try:
                answers = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        writer.close()
    texts = {name: text for name, answer in zip(prompts, answers, strict=True) if (text := clean(answer))}
    kept = _round_trip(texts, passages, settings.round_trip_rank, retrieve)
    log(
        f"{len(texts)} queries written of {len(asked)} documents by {settings.model}; retrieval brings {len(kept)} of"
        f" their documents back among the first {settings.round_trip_rank}"
    )
    return [pseudo_query(WRITTEN, name, texts[name]) for name in kept]


def clean(answer: str) -> str:
    """The query of an answer: its first line that is one, without quotation marks and what some models put before it;
    empty where there is none."""
    for line in answer.splitlines():
        text = line.strip()
        head, colon, rest = text.partition(":")
        if colon and head.strip().casefold() in ("query", "question", "search query"):
            text = rest
        text = " ".join(text.strip(_QUOTES).split())
        if _FEWEST <= len(text) <= _MOST and any(map(str.isalpha, text)):
            return text
    return ""


def _written(store: ArtifactStore, settings: QueryWriterSettings, writer: QueryWriter, system: str, prompt: str) -> str:
    key = {
        "url": settings.url,
        "model": settings.model,
        "temperature": settings.temperature,
        "prompt": digest_json([system, prompt]),
    }
    # No code version: the answer depends on nothing but the prompt, and is paid for.
    return store.remember("written_query", key, lambda: {"answer": writer.ask(system, prompt)})["answer"]


def _prompt(examples: Sequence[tuple[str, str]], passage: str) -> str:
    shown = [f"Passage: {text[:_EXAMPLE_CHARACTERS]}\nQuery: {query}" for query, text in examples]
    return "\n\n".join([*shown, f"Passage: {passage[:_CHARACTERS]}\nQuery:"])


def _first_passages(passages: PassageTable, documents: int) -> dict[str, str]:
    """Title and text of the first passage of the `documents` documents with the smallest hash of their id."""
    ids = (name for _, rows in passages.stream(["document_id"]) for name in rows["document_id"])
    names = pd.DataFrame({"query_id": [name for name, _ in groupby(ids)]})
    chosen = set(sample_by_hash(names, documents)["query_id"])
    texts: dict[str, str] = {}
    for _, rows in passages.stream(["document_id", "title", "text"]):
        for row in rows[rows["document_id"].isin(chosen)].itertuples(index=False):
            texts.setdefault(str(row.document_id), passage_text(str(row.title), str(row.text)))
    return texts


def _examples(
    passages: PassageTable, queries: pd.DataFrame, judgments: pd.DataFrame, count: int
) -> list[tuple[str, str]]:
    """(query, passage) of some judged training queries."""
    train = queries.loc[queries["split"] == "train", ["query_id", "text"]]
    judged = judgments[judgments["grade"] > 0].merge(train, on="query_id").drop_duplicates("query_id")
    if judged.empty or not count:
        return []
    sample = sample_by_hash(judged, count)
    wanted = set(sample["document_id"])
    texts: dict[str, str] = {}
    for _, rows in passages.stream(["document_id", "title", "text"]):
        for row in rows[rows["document_id"].isin(wanted)].itertuples(index=False):
            texts.setdefault(str(row.document_id), passage_text(str(row.title), str(row.text)))
    return [
        (str(row.text), texts[str(row.document_id)])
        for row in sample.itertuples(index=False)
        if str(row.document_id) in texts
    ]


def _round_trip(texts: dict[str, str], passages: PassageTable, rank: int, retrieve: Retrieve) -> list[str]:
    """The documents whose query brings them back among the first `rank`."""
    if not rank or not texts:
        return list(texts)
    retrieved = retrieve(passages, list(texts.values()), rank)
    return [name for name, names in zip(texts, retrieved, strict=True) if name in names]
