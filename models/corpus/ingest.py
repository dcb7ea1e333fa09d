"""A corpus source read into the tables of the data contracts; what breaks them goes to quarantine with the reason."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from models.contracts.rows import SPLITS, Document, Judgment, Passage, Query, RejectedRow
from models.corpus.chunking import split_documents
from models.corpus.external_sort import SortedSpill, Spill
from models.corpus.known_spans import DOCUMENTS_FILE, KnownSpans, digest_table, text_digest
from models.corpus.row_rules import Problem, row_key, row_problem, unknown_reference
from models.corpus.sources.base import LEAKAGE, CorpusSource, rejected_row, row_digest
from models.corpus.sources.corrections import NO_CORRECTIONS, CorrectionOutcome, Corrections
from models.corpus.splits import place_queries, repeated_texts
from models.errors import SourceError
from models.settings import CorpusSettings
from models.store.durable_files import writing
from models.store.tables import write_rows, write_table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Row = TypeVar("Row", Document, Query, Judgment)
_BATCH_DOCUMENTS = 256
_MANY_REFUSED = 100_000
_TABLES = ("documents", "queries", "judgments")
_TYPES: dict[str, str] = {"grade": "int64"}


def write_corpus(
    source: CorpusSource,
    settings: CorpusSettings,
    tokenizer: Tokenizer,
    folder: Path,
    fingerprint: str = "",
    previous: Path | None = None,
    corrections: Corrections = NO_CORRECTIONS,
) -> dict[str, int]:
    """Read a source into `folder` as passages, queries, judgments and quarantined_rows (.parquet); return their counts.

    documents.parquet has what the next call needs to know of the documents, corrections.parquet what became of
    `corrections`, which the source was opened with.

    No row raises: what is malformed, repeated (the first wins), breaks its contract, names an unknown row or leaks
    between splits goes to quarantine. Memory holds the queries, the judgments and the ids of the documents; passages
    and refused rows are sorted and written on disk.

    `previous` is a folder with passages.parquet and documents.parquet of an earlier call with the same tokenizer and
    lengths of passages: documents whose text is unchanged are cut as they were.

    Raises `SourceError` when the source cannot be read, refuses most of very many rows, or is no longer what
    `fingerprint` says (by default, what it was at the start) when all is read, and `ArtifactError` when the disk is
    full. A process that is killed leaves files in `folder` that nobody refers to.
    """
    fingerprint = fingerprint or source.fingerprint()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        spilled = tempfile.TemporaryDirectory(dir=folder, prefix=".spill-")
    with (
        spilled as work,
        SortedSpill(Passage, Path(work) / "passages.sqlite", key=lambda row: (row.document_id, row.start)) as passages,
    ):
        refused = {table: _Refused(table, Path(work)) for table in _TABLES}
        digests = _spill_passages(source, settings, tokenizer, KnownSpans(previous), passages, refused["documents"])
        documents = set(digests)
        read_queries = list(_accept(source.queries(), refused["queries"]))
        known = {query.query_id for query in read_queries}
        read_judgments = list(
            _accept(
                source.judgments(),
                refused["judgments"],
                lambda row: row_problem(row) or unknown_reference(row, known, documents),
            )
        )
        if source.fingerprint() != fingerprint:
            raise SourceError("the corpus source changed while it was read", "Run again when it is at rest.")
        queries, judgments = _frame(read_queries, Query), _frame(read_judgments, Judgment)
        placed = place_queries(queries, judgments, settings.dev_share, settings.test_share)
        leaks = repeated_texts(placed)
        for row in _leak_rows(read_queries, read_judgments, placed, leaks):
            refused[row.table].spill.add([row])
        placed = placed.loc[~placed["query_id"].isin(leaks["query_id"])].reset_index(drop=True)
        judgments = judgments.loc[~judgments["query_id"].isin(leaks["query_id"])]
        judgments = judgments.sort_values(["query_id", "document_id"], ignore_index=True)
        quarantined = chain.from_iterable(refused[table].spill for table in _TABLES)
        written = write_rows(passages, Passage, folder / "passages.parquet")
        write_table(digest_table(digests.items()), folder / DOCUMENTS_FILE)
        write_table(placed, folder / "queries.parquet")
        write_table(judgments, folder / "judgments.parquet")
        quarantine = write_rows(_with_digest(quarantined), RejectedRow, folder / "quarantined_rows.parquet")
        write_rows(corrections.outcomes(), CorrectionOutcome, folder / "corrections.parquet")
    return _counts(len(documents), written, list(placed["split"]), len(judgments), quarantine)


def _counts(documents: int, passages: int, splits: list[str], judgments: int, quarantined: int) -> dict[str, int]:
    by_split = Counter(splits)
    return {
        "documents": documents,
        "passages": passages,
        "queries": len(splits),
        **{f"queries_{split}": by_split[split] for split in SPLITS},
        "judgments": judgments,
        "quarantined_rows": quarantined,
    }


class _Refused:
    """The refused rows of a table, on disk."""

    def __init__(self, table: str, folder: Path) -> None:
        self.table = table
        self.spill = Spill(RejectedRow, folder / f"refused-{table}.arrow")
        self._count = 0

    def add(self, row: RejectedRow, accepted: int) -> None:
        """Add a row; `accepted` is how many were not refused. Raises `SourceError` where most of very many are."""
        self.spill.add([row])
        self._count += not row.reason.startswith(LEAKAGE)
        if self._count > max(_MANY_REFUSED, accepted):
            raise SourceError(
                f"{self._count:,} of the first {self._count + accepted:,} {self.table} were refused, the last at "
                f"{row.position}: {row.reason}",
                "This is not the corpus that the settings describe: correct corpus.source and its section.",
            )


def _spill_passages(
    source: CorpusSource,
    settings: CorpusSettings,
    tokenizer: Tokenizer,
    known: KnownSpans,
    spill: SortedSpill[Passage],
    refused: _Refused,
) -> dict[str, str]:
    """Cut the documents into passages on `spill`; return the ids of those that were, with digests of their texts."""
    kept: dict[str, str] = {}
    taken: set[str] = set()
    documents = _accept(source.documents(), refused)
    while batch := list(islice(documents, _BATCH_DOCUMENTS)):
        spans = [known.find(document) for document in batch]
        pieces = split_documents(batch, tokenizer, settings.passage_tokens, settings.overlap_tokens, spans)
        for document, passages in zip(batch, pieces, strict=True):
            repeated = [row.passage_id for row in passages if row.passage_id in taken]
            if repeated:
                reason = f"passage id {repeated[0]} is taken by another document"
                row = rejected_row("documents", reason, document, document.document_id, rule="duplicate_id")
                refused.add(row, len(kept))
            else:
                spill.add(passages)
                kept[document.document_id] = text_digest(document)
                taken.update(row.passage_id for row in passages)
    return kept


def _accept(
    rows: Iterable[Row | RejectedRow], refused: _Refused, find_problem: Callable[[Row], Problem | None] | None = None
) -> Iterator[Row]:
    """Yield the rows that hold their contract, each key once; put the others on `refused`."""
    seen: set[Any] = set()
    for number, row in enumerate(rows, 1):
        if isinstance(row, RejectedRow):
            refused.add(row, len(seen))
            continue
        key, problem = row_key(row), (find_problem or row_problem)(row)
        if problem is None and key in seen:
            problem = "duplicate_id", f"repeats {' '.join(key)}; the first one is kept"
        if problem is not None:
            rule, reason = problem
            position = f"{refused.table} row {number}"
            refused.add(rejected_row(refused.table, reason, row, position, rule=rule), len(seen))
        else:
            seen.add(key)
            yield row


def _leak_rows(
    queries: list[Query], judgments: list[Judgment], placed: pd.DataFrame, leaks: pd.DataFrame
) -> Iterator[RejectedRow]:
    """Rows for the queries that repeat one of a stronger split, and for their judgments."""
    others = dict(zip(leaks["query_id"], leaks["other_id"], strict=True))
    splits = dict(zip(placed["query_id"], placed["split"], strict=True))
    for table, rows in (("queries", queries), ("judgments", judgments)):
        for row in sorted((row for row in rows if row.query_id in others), key=row_key):
            split, other = splits[row.query_id], others[row.query_id]
            reason = f"{LEAKAGE}: the {split} query {row.query_id} has the text of {splits[other]} query {other}"
            yield rejected_row(table, reason, row, f"query {row.query_id}", rule="leakage")


def _with_digest(rows: Iterable[RejectedRow]) -> Iterator[RejectedRow]:
    """The rows, with the digest of what is shown where a source has given none."""
    for row in rows:
        yield row if row.digest else replace(row, digest=row_digest(row.row))


def _frame(rows: list[Any], kind: type) -> pd.DataFrame:
    """A table with the columns of a dataclass, typed also when it has no rows or a column has no values."""
    columns = {}
    for field in fields(kind):
        if field.name == "place":
            continue
        values = [getattr(row, field.name) for row in rows]
        columns[field.name] = pd.Series(values, dtype=_TYPES.get(field.name, "str"))
    return pd.DataFrame(columns)
