"""The corpus as artifacts: one reading of a source gives its four tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from models.corpus.chunking import load_tokenizer
from models.corpus.ingest import write_corpus
from models.corpus.pseudo_queries import WriteQueries, add_pseudo_queries
from models.corpus.sources import describe_source, open_source
from models.corpus.sources.base import CorpusSource
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.steps import PASSAGES, TABLES
from models.settings import Settings, values_of
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import digest_file

_WITH = {"passages": "documents.parquet", "quarantined_rows": "corrections.parquet"}
"""What is kept beside a table: for the next reading, and for people."""


class Writing(NamedTuple):
    """What writes queries, and the version of all that decides them but for the settings."""

    version: str
    write: WriteQueries


def read_source(
    store: ArtifactStore,
    settings: Settings,
    tokenizer: Path,
    corrections: Corrections = NO_CORRECTIONS,
    log: Callable[[str], None] = lambda message: None,
    writing: Writing | None = None,
) -> dict[str, Artifact]:
    """`read_tables` of the source that the settings name, read with `corrections` in place of the rows they are of."""
    source = open_source(settings.corpus, settings.corpus_path, corrections)
    described = describe_source(settings.corpus, settings.corpus_path)
    return read_tables(store, settings, source, described, tokenizer, corrections, log, writing)


def read_tables(
    store: ArtifactStore,
    settings: Settings,
    source: CorpusSource,
    described: str,
    tokenizer: Path,
    corrections: Corrections = NO_CORRECTIONS,
    log: Callable[[str], None] = lambda message: None,
    writing: Writing | None = None,
) -> dict[str, Artifact]:
    """The tables `passages`, `queries`, `judgments` and `quarantined_rows` of a source, read only where it was not.

    `tokenizer` is the tokenizer.json that passages are cut by; `described` is the source in words, for lineage;
    `writing` adds queries that a language model has written.
    """
    tokenized = {"tokenizer": digest_file(tokenizer)}
    outside = {"source": source.fingerprint(), **tokenized}
    if writing is not None:
        outside["query_writer"] = writing.version
    with store.workspace.folder("corpus-tables") as folder:
        reading = Reading(store, settings, source, described, tokenizer, corrections, outside, folder, log, writing)
        return {
            name: step.get_or_create(store, settings, partial(reading.take, name), outside=outside)
            for name, step in TABLES.items()
        }


class Reading:
    """One reading of a source, done when the first of its tables is asked for."""

    def __init__(
        self,
        store: ArtifactStore,
        settings: Settings,
        source: CorpusSource,
        described: str,
        tokenizer: Path,
        corrections: Corrections,
        outside: dict[str, str],
        folder: Path,
        log: Callable[[str], None],
        writing: Writing | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._source = source
        self._described = described
        self._tokenizer = tokenizer
        self._corrections = corrections
        self._outside = outside
        self._folder = folder
        self._log = log
        self._writing = writing

    def take(self, table: str, folder: Path) -> dict[str, Any]:
        """Move a table to `folder`, with what is kept beside it; return the counts of the reading."""
        counts = self._counts
        for name in (f"{table}.parquet", *([_WITH[table]] if table in _WITH else [])):
            shutil.move(self._folder / name, folder)
        return {"dagster/row_count": counts[table], **counts, "source": self._described}

    @cached_property
    def _counts(self) -> dict[str, int]:
        self._log(f"reading {self._settings.corpus.source}")
        settings = self._settings
        lengths = values_of(settings, "corpus.passage_tokens", "corpus.overlap_tokens")
        before = PASSAGES.previous(self._store, {**lengths, "tokenizer": self._outside["tokenizer"]})
        counts = write_corpus(
            self._source,
            settings.corpus,
            load_tokenizer(self._tokenizer),
            self._folder,
            self._outside["source"],
            before and before.folder,
            self._corrections,
        )
        mode, documents = settings.training.pseudo_queries, settings.training.pseudo_documents
        if mode == "off":
            return counts
        shares = settings.corpus.dev_share, settings.corpus.test_share
        write = self._writing and self._writing.write
        return counts | add_pseudo_queries(
            self._folder, mode, documents, *shares, settings.training.pseudo_kinds, write
        )
