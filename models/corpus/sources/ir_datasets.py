"""Data sets of the library ir_datasets (MacAvaney et al., 2021, https://arxiv.org/abs/2103.02280)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import Any

from pydantic import Field

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.base import require_extra
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.sources.judged_splits import JudgedSplits
from models.corpus.sources.raw_rows import Grade, Id, JudgmentRow, Label, RawRow, Row, Text, parse, place_judgments
from models.errors import SourceError
from models.settings import IrDatasetsSettings
from models.store.durable_files import digest_json

_PARTS = {"documents": "docs", "queries": "queries", "judgments": "qrels"}


class IrDocument(RawRow):
    """A document of ir_datasets; one without a field `text` is read as its `default_text()`."""

    document_id: Id = Field(validation_alias="doc_id", description="Text, not empty.")
    title: Label = Field(default="", description="Text, where the data set has titles.")
    text: Text = Field(description="Text with a visible character.")

    def document(self, source: str) -> Document:
        """As a document."""
        return Document(self.document_id, self.title, self.text, source, place=self.place)


class IrQuery(RawRow):
    """A query of ir_datasets; one without a field `text` is read as its `default_text()`."""

    query_id: Id = Field(description="Text, not empty.")
    text: Text = Field(description="Text with a visible character.")

    def query(self, split: str = "") -> Query:
        """As a query."""
        return Query(self.query_id, self.text, split, place=self.place)


class IrJudgment(JudgmentRow):
    """A judgment (qrel) of ir_datasets."""

    document_id: Id = Field(validation_alias="doc_id", description="A document's id.")
    grade: Grade = Field(validation_alias="relevance", description="An integer; below 0, as TREC marks spam, is 0.")


CONTRACTS: Mapping[str, type[RawRow]] = {"documents": IrDocument, "queries": IrQuery, "judgments": IrJudgment}


class IrDatasetsSource:
    """Reads documents of one data set, and queries and judgments of those of the splits.

    Either `settings.queries` names a data set whose queries RerankOps splits, or `settings.train`, `.dev` and `.test`
    name those of the splits: a query judged in several counts where `JudgedSplits` says, and one that none judges is
    left out. ir_datasets fetches what it lacks on the first reading, checks it and streams it; one that was cut off is
    begun anew. Raises `SourceError` naming the setting, and with what ir_datasets says.
    """

    def __init__(self, settings: IrDatasetsSettings, corrections: Corrections = NO_CORRECTIONS) -> None:
        require_extra("ir-datasets", "ir_datasets")
        self.settings = settings
        self._corrections = corrections
        named = {split: name for split in ("train", "dev", "test") if (name := getattr(settings, split))}
        if settings.queries and named:
            raise SourceError(
                f"corpus.ir_datasets: queries and {', '.join(named)} are both set",
                "Name one data set that RerankOps splits, or one for each split.",
            )
        self._sets = {"": settings.queries} if settings.queries else named
        self._require("documents", "documents", settings.documents)
        for split, name in self._sets.items():
            self._require(split or "queries", "queries", name)
            self._require(split or "queries", "judgments", name)
        self._judged = JudgedSplits({split: partial(self._judgments_of, name) for split, name in self._sets.items()})

    def fingerprint(self) -> str:
        """Digest of the names and the version of ir_datasets, and of all rows unless the sets are published."""
        content = "" if self.settings.published else self._digest()
        version = metadata.version("ir_datasets")
        return digest_json({"content": content, "version": version, "settings": self.settings.model_dump()})

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents."""
        name = self.settings.documents
        for item in self._corrections.over("documents", _rows(name, "documents")):
            row = item if isinstance(item, RejectedRow) else parse(IrDocument, item[1], "documents", item[0])
            yield row if isinstance(row, RejectedRow) else row.document(name)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the judged queries, each once, with their split."""
        splits = self._judged.of_queries()
        for split, name in self._sets.items():
            for item in self._corrections.over("queries", _rows(name, "queries")):
                row = item if isinstance(item, RejectedRow) else parse(IrQuery, item[1], "queries", item[0])
                if isinstance(row, RejectedRow):
                    yield row
                elif splits.get(row.query_id) == split:
                    yield row.query(split)

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments of all sets, test first."""
        return self._judged.judgments()

    def _judgments_of(self, name: str) -> Iterator[tuple[str, Judgment] | RejectedRow]:
        rows = self._corrections.over("judgments", _rows(name, "judgments"))
        for item in place_judgments(rows, IrJudgment):
            if isinstance(item, RejectedRow) or item[1].grade >= 0:
                yield item
            else:
                yield item[0], replace(item[1], grade=0)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        names = [("documents", self.settings.documents)]
        names += [(part, name) for name in self._sets.values() for part in ("queries", "judgments")]
        for part, name in names:
            for _, record in _rows(name, part):
                digest.update(repr(record).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _require(self, key: str, part: str, name: str) -> None:
        """Raise `SourceError` if the data set does not exist or has no such part."""
        if not name:
            raise SourceError(f"corpus.ir_datasets.{key} is empty", "Name a data set, as beir/scifact.")
        if not _guard(lambda: _load(name, key).has(_PARTS[part]), name):
            raise SourceError(f"corpus.ir_datasets.{key}: {name} has no {part}", "Name a data set that has them.")


def _load(name: str, key: str) -> Any:
    import ir_datasets

    try:
        return ir_datasets.load(name)
    except KeyError as error:
        raise SourceError(
            f"corpus.ir_datasets.{key}: ir_datasets knows no {name!r}", "https://ir-datasets.com lists what there is."
        ) from error


def _rows(name: str, part: str) -> Iterator[Row]:
    """Yield (position, fields) of a part of a data set; raises nothing but `SourceError`."""
    rows = _guard(lambda: iter(getattr(_load(name, part), f"{_PARTS[part]}_iter")()), name)
    number = 0
    while (row := _guard(lambda: next(rows, None), name)) is not None:
        number += 1
        record = _guard(row._asdict, name)
        if "text" not in record and hasattr(row, "default_text"):
            record["text"] = _guard(row.default_text, name)
        yield f"{name} {part} row {number}", record


def _guard(call: Callable[[], Any], name: str) -> Any:
    try:
        return call()
    except SourceError:
        raise
    except Exception as error:  # what its loaders, parsers and the network raise, of every kind
        raise SourceError(
            f"ir_datasets cannot read {name}: {type(error).__name__}: {error}",
            "If it could not be fetched, fetch it where there is a network and set IR_DATASETS_HOME to that folder.",
        ) from error
