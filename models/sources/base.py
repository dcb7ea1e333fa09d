"""What a corpus source is: documents, queries and judgments as streams, and a fingerprint of what decides them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from models.errors import SourceError
from models.files import digest_file, digest_json
from models.types import Document, Judgment, Query, RejectedRow

ROW_CHARACTERS = 2000
"""Characters of a refused row that are kept."""

LEAKAGE = "leakage"
"""Reasons that start so mark well-formed rows kept out because they would leak between splits."""


class CorpusSource(Protocol):
    """A corpus that can be read again and again, each time with the same result.

    Rows that cannot be read come as `RejectedRow` in the place where they stood; a missing or unreadable file raises
    `SourceError`.
    """

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the content: the same fingerprint, the same rows."""
        ...

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents."""
        ...

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries."""
        ...

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments."""
        ...


def rejected(table: str, reason: str, position: str, row: object = "") -> RejectedRow:
    """A `RejectedRow` with the row shortened to what a quarantine table keeps, and always valid Unicode."""
    text = row.decode("utf-8", "replace") if isinstance(row, bytes) else str(row)
    shown = text[:ROW_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return RejectedRow(table, reason.encode("utf-8", "replace").decode("utf-8"), position, shown)


def require_file(folder: Path, names: Iterable[str], key: str) -> Path:
    """The first of `names` that exists below `folder`. Raises `SourceError` naming the path and the settings `key`."""
    names = list(names)
    require_folder(folder)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise SourceError(f"{key}: no file {' or '.join(names)} in {folder}", f"Put it there, or correct {key}.")


def require_folder(folder: Path) -> None:
    """Raise `SourceError` if `folder` is not a folder."""
    if not folder.is_dir():
        raise SourceError(f"corpus.path: no folder at {folder}", "Set corpus.path to the folder with the corpus files.")


def digest_files(kind: str, files: Iterable[Path], folder: Path, settings: object = None) -> str:
    """SHA-256 (hex) over the kind of source, the content digests of `files` and the settings that steer the reading."""
    digests = {path.relative_to(folder).as_posix(): digest_file(path) for path in files}
    return digest_json({"kind": kind, "files": digests, "settings": settings})


def as_id(value: object) -> str:
    """An identifier as text: strings trimmed, integers written out, everything else an empty string."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def as_grade(value: object) -> int | None:
    """A grade as an integer, from an integer, an integral float or their text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.removeprefix("-").isdecimal() and len(digits) < 10 else None
    return None
