"""Data sets in the layout of BEIR (Thakur et al., 2021, https://arxiv.org/abs/2104.08663).

A folder with corpus.jsonl, queries.jsonl (each may be gzipped) and qrels/{train,dev,test}.tsv.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field, model_validator

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.base import digest_files, is_file, rejected, require_file, require_folder, require_within
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.sources.judged_splits import SPLITS, JudgedSplits
from models.corpus.sources.lines import read_json_lines, read_text_lines
from models.corpus.sources.raw_rows import (
    Id,
    JudgmentRow,
    Label,
    OptionalText,
    RawRow,
    Row,
    Text,
    broken,
    parse,
    place_judgments,
)
from models.errors import SourceError
from models.settings import MAX_DECOMPRESSED_BYTES

_QRELS_COLUMNS = ("query_id", "document_id", "grade")
_HEADER = re.compile(r"query[-_ ]?id|query|qid|topic", re.I)


class BeirDocument(RawRow):
    """A line of corpus.jsonl."""

    document_id: Id = Field(validation_alias="_id", description="Text or integer, not empty.")
    title: Label = Field(default="", description="Text.")
    text: OptionalText = Field(default="", description="Text; where it is empty the title is the text.")

    @model_validator(mode="after")
    def _some_text(self) -> BeirDocument:
        if not self.title.strip() and not self.text.strip():
            raise broken("missing", "neither title nor text")
        return self

    def document(self, source: str) -> Document:
        """As a document; one with only a title has the title as its text."""
        title, text = (self.title, self.text) if self.text.strip() else ("", self.title)
        return Document(self.document_id, title, text, source, place=self.place)


class BeirQuery(RawRow):
    """A line of queries.jsonl."""

    query_id: Id = Field(validation_alias="_id", description="Text or integer, not empty.")
    text: Text = Field(description="Text with a visible character.")

    def query(self, split: str = "") -> Query:
        """As a query."""
        return Query(self.query_id, self.text, split, place=self.place)


CONTRACTS: Mapping[str, type[RawRow]] = {"documents": BeirDocument, "queries": BeirQuery, "judgments": JudgmentRow}


class BeirSource:
    """Reads a BEIR folder line by line.

    The split of a query is the qrels file in which it is judged; judged in several, test wins over dev and dev over
    train, and its judgments in the other files are refused as leakage. Queries that no file judges are left out.
    """

    def __init__(
        self,
        folder: Path,
        max_decompressed: int = MAX_DECOMPRESSED_BYTES,
        corrections: Corrections = NO_CORRECTIONS,
    ) -> None:
        require_folder(folder)
        self.folder = folder
        self._corrections = corrections
        self._max_decompressed = max_decompressed
        self._corpus = require_file(folder, ("corpus.jsonl", "corpus.jsonl.gz"), "corpus.path")
        self._queries = require_file(folder, ("queries.jsonl", "queries.jsonl.gz"), "corpus.path")
        self._qrels = {
            split: require_within(path, folder, "corpus.path")
            for split in SPLITS
            if is_file(path := folder / "qrels" / f"{split}.tsv")
        }
        if not self._qrels:
            raise SourceError(
                f"corpus.path: no qrels/train.tsv, dev.tsv or test.tsv in {folder}",
                "Judgments are needed to train and to evaluate: put at least one of them there.",
            )
        self._judged = JudgedSplits({split: partial(self._judgments_of, path) for split, path in self._qrels.items()})

    def fingerprint(self) -> str:
        """Digest of the contents of all files."""
        return digest_files("beir", [self._corpus, self._queries, *self._qrels.values()], self.folder)

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents; one with only a title has the title as its text."""
        for item in self._corrections.over("documents", self._lines(self._corpus, "documents")):
            row = item if isinstance(item, RejectedRow) else parse(BeirDocument, item[1], "documents", item[0])
            yield row if isinstance(row, RejectedRow) else row.document(self.folder.name)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the judged queries with their split."""
        splits = self._judged.of_queries()
        for item in self._corrections.over("queries", self._lines(self._queries, "queries")):
            row = item if isinstance(item, RejectedRow) else parse(BeirQuery, item[1], "queries", item[0])
            if isinstance(row, RejectedRow):
                yield row
            elif row.query_id in splits:
                yield row.query(splits[row.query_id])

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments of all qrels files, test first."""
        return self._judged.judgments()

    def _lines(self, path: Path, table: str) -> Iterator[Row | RejectedRow]:
        return read_json_lines(path, table, self._max_decompressed)

    def _judgments_of(self, path: Path) -> Iterator[tuple[str, Judgment] | RejectedRow]:
        return place_judgments(self._corrections.over("judgments", _read_qrels(path)))


def _read_qrels(path: Path) -> Iterator[Row | RejectedRow]:
    """Yield (position, fields); the first line is a header if its first field is a name of the query's id."""
    for item in read_text_lines(path, "judgments"):
        if isinstance(item, RejectedRow):
            yield replace(item, position=f"qrels/{item.position}")
            continue
        position, line = f"qrels/{item[0]}", item[1]
        fields = line.split("\t")
        if len(fields) != len(_QRELS_COLUMNS):
            yield rejected(
                "judgments", f"{len(fields)} tab-separated fields instead of 3", position, line, rule="columns"
            )
            continue
        if item[0].endswith(":1") and _HEADER.fullmatch(fields[0].strip()):
            continue
        yield position, dict(zip(_QRELS_COLUMNS, fields, strict=True))
