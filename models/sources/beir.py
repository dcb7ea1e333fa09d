"""Data sets in the layout of BEIR (Thakur et al., 2021, https://arxiv.org/abs/2104.08663).

A folder with corpus.jsonl, queries.jsonl (each may be gzipped) and qrels/{train,dev,test}.tsv.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.errors import SourceError
from models.sources.base import LEAKAGE, as_grade, as_id, digest_files, rejected, require_file, require_folder
from models.sources.lines import read_json_lines, read_text_lines
from models.types import Document, Judgment, Query, RejectedRow

_SPLITS = ("test", "dev", "train")


class BeirSource:
    """Reads a BEIR folder line by line.

    The split of a query is the qrels file in which it is judged; judged in several, test wins over dev and dev over
    train, and its judgments in the other files are refused as leakage. Queries that no file judges are left out.
    """

    def __init__(self, folder: Path) -> None:
        require_folder(folder)
        self.folder = folder
        self._corpus = require_file(folder, ("corpus.jsonl", "corpus.jsonl.gz"), "corpus.path")
        self._queries = require_file(folder, ("queries.jsonl", "queries.jsonl.gz"), "corpus.path")
        self._qrels = {s: path for s in _SPLITS if (path := folder / "qrels" / f"{s}.tsv").is_file()}
        if not self._qrels:
            raise SourceError(
                f"corpus.path: no qrels/train.tsv, dev.tsv or test.tsv in {folder}",
                "Judgments are needed to train and to evaluate: put at least one of them there.",
            )
        self._splits: dict[str, str] | None = None

    def fingerprint(self) -> str:
        """Digest of the contents of all files."""
        return digest_files("beir", [self._corpus, self._queries, *self._qrels.values()], self.folder)

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents; one with only a title has the title as its text."""
        for item in read_json_lines(self._corpus, "documents"):
            if isinstance(item, RejectedRow):
                yield item
                continue
            position, record = item
            document_id, title, text = as_id(record.get("_id")), record.get("title") or "", record.get("text") or ""
            if not document_id:
                yield rejected("documents", "no _id", position, record)
            elif not isinstance(title, str) or not isinstance(text, str):
                yield rejected("documents", "title and text must be strings", position, record)
            elif not title.strip() and not text.strip():
                yield rejected("documents", "neither title nor text", position, record)
            elif not text.strip():
                yield Document(document_id, "", title, source=self.folder.name)
            else:
                yield Document(document_id, title, text, source=self.folder.name)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the judged queries with their split."""
        splits = self._split_of_queries()
        for item in read_json_lines(self._queries, "queries"):
            if isinstance(item, RejectedRow):
                yield item
                continue
            position, record = item
            query_id, text = as_id(record.get("_id")), record.get("text")
            if not query_id:
                yield rejected("queries", "no _id", position, record)
            elif not isinstance(text, str) or not text.strip():
                yield rejected("queries", "no text", position, record)
            elif query_id in splits:
                yield Query(query_id, text, split=splits[query_id])

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments of all qrels files, test first."""
        splits = self._split_of_queries()
        for split, path in self._qrels.items():
            for item in _read_qrels(path):
                if isinstance(item, RejectedRow):
                    yield item
                    continue
                position, judgment = item
                if splits[judgment.query_id] == split:
                    yield judgment
                else:
                    reason = (
                        f"{LEAKAGE}: query {judgment.query_id} is judged in {splits[judgment.query_id]}, which counts"
                    )
                    yield rejected("judgments", reason, position, judgment)

    def _split_of_queries(self) -> dict[str, str]:
        if self._splits is None:
            self._splits = {}
            for split, path in self._qrels.items():
                for item in _read_qrels(path):
                    if not isinstance(item, RejectedRow):
                        self._splits.setdefault(item[1].query_id, split)
        return self._splits


def _read_qrels(path: Path) -> Iterator[tuple[str, Judgment] | RejectedRow]:
    """Yield (position, judgment); the first line is a header unless its third field is a number."""
    for item in read_text_lines(path, "judgments"):
        if isinstance(item, RejectedRow):
            yield RejectedRow(item.table, item.reason, f"qrels/{item.position}", item.row)
            continue
        position, line = f"qrels/{item[0]}", item[1]
        fields = [field.strip() for field in line.split("\t")]
        grade = as_grade(fields[2]) if len(fields) == 3 else None
        if grade is None and item[0].endswith(":1"):
            continue
        if len(fields) != 3:
            yield rejected("judgments", f"{len(fields)} tab-separated fields instead of 3", position, line)
        elif grade is None:
            yield rejected("judgments", f"grade {fields[2]!r} is not an integer", position, line)
        elif not fields[0] or not fields[1]:
            yield rejected("judgments", "no query or document id", position, line)
        else:
            yield position, Judgment(fields[0], fields[1], grade)
