"""Corrections of rows that were quarantined: a reading takes them in place of what stands in the source.

The source stays the truth. A correction is of one row, told by its place and the digest of what stood there; where the
source has something else now, the correction lapses and the source's row is read. It is in force again when the row is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.base import CorpusSource, row_digest
from models.corpus.sources.raw_rows import Row
from models.store.durable_files import digest_json

_NUMBER = re.compile(r"\d+$")

State = Literal["applied", "moved", "lapsed"]


@dataclass(frozen=True)
class Correction:
    """A row to read in place of the one at `position` whose digest is `digest`; `row` has the source's own columns."""

    correction_id: str
    table: str
    position: str
    digest: str
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CorrectionOutcome:
    """What a reading did with a correction, and in words why."""

    correction_id: str
    table: str
    position: str
    state: str
    message: str


class Corrections:
    """Corrections in force, and after a reading what became of each.

    Rows are told by their place and digest. One that could not be parsed at all and has moved in its file, as when
    lines were put in above it, is found by its digest alone.
    """

    def __init__(self, items: Iterable[Correction] = ()) -> None:
        self._items = tuple(sorted(items, key=lambda item: (item.table, item.position, item.correction_id)))
        self._at = {(item.table, item.position): item for item in self._items}
        self._outcomes: dict[str, CorrectionOutcome] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what decides which rows are read."""
        return digest_json([[c.table, c.position, c.digest, dict(c.row)] for c in self._items])

    def over(self, table: str, rows: Iterable[Row | RejectedRow]) -> Iterator[Row | RejectedRow]:
        """Yield the raw rows of a table, or of one file of it, with the corrected ones in place of the broken.

        Rows that moved come at the end. May be called again, with the same result.
        """
        if not any(item.table == table for item in self._items):
            yield from rows
            return
        by_digest: dict[str, list[Correction]] = defaultdict(list)
        for item in self._items:
            if item.table == table:
                by_digest[item.digest].append(item)
        applied: set[str] = set()
        held: dict[str, list[RejectedRow]] = defaultdict(list)
        for row in rows:
            position = row.position if isinstance(row, RejectedRow) else row[0]
            correction = self._at.get((table, position))
            if correction is not None:
                if (row.digest if isinstance(row, RejectedRow) else row_digest(row[1])) == correction.digest:
                    applied.add(correction.correction_id)
                    self._note(correction, "applied", f"read in place of {position}")
                    yield position, dict(correction.row)
                    continue
                self._note(correction, "lapsed", f"{position} has another row now")
            if isinstance(row, RejectedRow) and len(held[row.digest]) < len(by_digest.get(row.digest, ())):
                held[row.digest].append(row)
            else:
                yield row
        for digest, held_rows in held.items():
            waiting = [item for item in by_digest[digest] if item.correction_id not in applied]
            for row in held_rows:
                of_file = [item for item in waiting if _file(item.position) == _file(row.position)]
                if not of_file:
                    yield row
                    continue
                waiting.remove(of_file[0])
                self._note(of_file[0], "moved", f"read in place of {row.position}, to which the row has moved")
                yield row.position, dict(of_file[0].row)

    def outcomes(self) -> list[CorrectionOutcome]:
        """What the readings so far did with each correction; one whose row they did not meet has lapsed."""
        gone = CorrectionOutcome("", "", "", "lapsed", "the source has no such row any more")
        return [
            self._outcomes.get(c.correction_id)
            or replace(gone, correction_id=c.correction_id, table=c.table, position=c.position)
            for c in self._items
        ]

    def _note(self, item: Correction, state: State, message: str) -> None:
        self._outcomes[item.correction_id] = CorrectionOutcome(
            item.correction_id, item.table, item.position, state, message
        )


class CorrectedSource:
    """A source that reads `corrections`: they are a part of its fingerprint."""

    def __init__(self, source: CorpusSource, corrections: Corrections) -> None:
        self._source = source
        self._corrections = corrections

    def fingerprint(self) -> str:
        """Digest of the source's fingerprint and of the corrections."""
        return digest_json({"source": self._source.fingerprint(), "corrections": self._corrections.digest})

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents."""
        return self._source.documents()

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries."""
        return self._source.queries()

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments."""
        return self._source.judgments()


NO_CORRECTIONS = Corrections()
"""For a reading that is to be what the source says."""


def _file(position: str) -> str:
    """The place of a row less its number: rows of one file, or of one statement, share it."""
    return _NUMBER.sub("", position)
