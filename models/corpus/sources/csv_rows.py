"""CSV read record by record, where a broken record costs its first line and no more, and memory is bounded."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from models.contracts.rows import RejectedRow, Rule
from models.corpus.sources.base import rejected
from models.corpus.sources.lines import MAX_LINE_BYTES, LongLine, read_lines
from models.errors import SourceError
from models.settings import MAX_DECOMPRESSED_BYTES


class _Lines:
    """The lines of a CSV file for `csv.reader`, with those of the record at hand kept until the next one starts.

    Lines come as (number, text); a `LongLine` instead of the text ends the record, as does a record that is too long.
    """

    def __init__(self, lines: Iterator[tuple[int, str | LongLine]], max_characters: int) -> None:
        self._lines = lines
        self._max_characters = max_characters
        self._waiting: deque[tuple[int, str | LongLine]] = deque()
        self._characters = 0
        self.record: list[tuple[int, str | LongLine]] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.record.append(line)
        text = line[1]
        if isinstance(text, str):
            self._characters += len(text)
            if self._characters <= self._max_characters:
                return text
        raise csv.Error(f"longer than {self._max_characters:,} bytes")

    def start_record(self) -> None:
        """Forget the lines of the record before."""
        self.record = []
        self._characters = 0

    def give_back(self) -> None:
        """Take all lines of the record but its first to be read again."""
        self._waiting.extendleft(reversed(self.record[1:]))
        del self.record[1:]


def read_csv_rows(
    path: Path, table: str, max_decompressed: int = MAX_DECOMPRESSED_BYTES, max_bytes: int = MAX_LINE_BYTES
) -> Iterator[list[str] | tuple[str, list[str]] | RejectedRow]:
    """Yield the header, then (position, fields) of each record; what is no record of the header's width is rejected.

    Fields are quoted by `"`, which is doubled inside, and may span lines (RFC 4180). Behind a record that cannot be
    read, as where a quote is never closed, reading starts again on the second of its lines. Blank lines are passed
    over. That takes no more than twice the time: a line that a quoted field runs through has quotes in pairs only, and
    such a line opens no quote itself. Raises `SourceError` when the header or the file cannot be read.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    lines = _Lines(_decoded(path, max_decompressed, max_bytes), max_bytes)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise SourceError(
            f"{path} has no header that can be read: {error}", "Its first line names the columns."
        ) from error
    yield header
    while True:
        lines.start_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number, text = lines.record[0]
            position = f"{path.name}:{number}"
            lines.give_back()
            if isinstance(text, LongLine):
                reason = f"line is longer than {max_bytes:,} bytes"
                yield rejected(table, reason, position, text.start, rule="too_long", digest=text.digest)
            else:
                rule: Rule = "too_long" if str(error).startswith("longer") else "malformed"
                yield rejected(table, f"not CSV: {error}", position, text, rule=rule)
            reader = csv.reader(lines, strict=True)
            continue
        if fields:
            position = f"{path.name}:{lines.record[0][0]}"
            problem = _problem(fields, len(header))
            if problem is None:
                yield position, fields
            else:
                text = "".join(text for _, text in lines.record if isinstance(text, str))
                yield rejected(table, problem[1], position, text, rule=problem[0])


def _decoded(path: Path, max_decompressed: int, max_bytes: int) -> Iterator[tuple[int, str | LongLine]]:
    for number, line in read_lines(path, max_bytes, max_decompressed, keep_ends=True):
        yield number, line if isinstance(line, LongLine) else line.decode("utf-8", "surrogateescape")


def _problem(fields: list[str], expected: int) -> tuple[Rule, str] | None:
    if len(fields) != expected:
        return "columns", f"{len(fields)} fields instead of {expected}"
    if any("\udc80" <= character <= "\udcff" for field in fields if not field.isascii() for character in field):
        return "encoding", "not UTF-8"
    return None
