"""What a corpus source is: documents, queries and judgments as streams, and a fingerprint of what decides them."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from models.contracts.rows import Document, Judgment, Query, RejectedRow, Rule
from models.errors import SourceError
from models.store.durable_files import digest_file, digest_json

ROW_CHARACTERS = 10_000
"""Characters of a refused row that are kept."""

_WORD_CHARACTERS = 2000
_DIGEST_BYTES = 12

LEAKAGE = "leakage"
"""Reasons that start so mark well-formed rows kept out because they would leak between splits."""


class CorpusSource(Protocol):
    """A corpus that can be read again and again, each time with the same result.

    Rows that cannot be read come as `RejectedRow` in the place where they stood; a missing or unreadable file raises
    `SourceError`, and nothing else is raised. No state is kept between two readings: after a kill a new reading starts
    from the first row and, as the order of the rows does not matter to the sorted tables, ends with the same artifacts.
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


def rejected(table: str, reason: str, position: str, row: object = "", *, rule: Rule, digest: str = "") -> RejectedRow:
    """A `RejectedRow` with the row shortened to what a quarantine table keeps, and always valid Unicode.

    A mapping is shown as JSON, so that it can be read in again. `digest` is that of the row unless it is given.
    """
    words = _valid(reason, _WORD_CHARACTERS), _valid(position, _WORD_CHARACTERS)
    return RejectedRow(table, *words, _show(row), rule, digest or row_digest(row))


def rejected_row(
    table: str, reason: str, row: Document | Query | Judgment, position: str, *, rule: Rule
) -> RejectedRow:
    """A well-formed row as a `RejectedRow`, at its own place if it has one, else at `position`."""
    values: dict[str, Any] = asdict(row)
    values.pop("place")
    origin, digest = row.place or (position, row_digest(values))
    return rejected(table, reason, origin, values, rule=rule, digest=digest)


def row_digest(row: object) -> str:
    """Digest (24 hex digits) of a raw row: bytes, text, or values by column."""
    if isinstance(row, bytes):
        data = row
    else:
        try:
            data = (row if isinstance(row, str) else repr(row)).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):  # an integer too long for text, or nested too deep
            data = type(row).__name__.encode()
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _show(row: object) -> str:
    if isinstance(row, bytes):
        return _valid(row[: 4 * ROW_CHARACTERS].decode("utf-8", "replace"), ROW_CHARACTERS)
    try:
        text = json.dumps(row, ensure_ascii=False, default=str) if isinstance(row, Mapping) else str(row)
    except (ValueError, TypeError, RecursionError):  # nested too deep, or holding itself, or keys that are no text
        text = f"a {type(row).__name__} that cannot be shown"
    return _valid(text, ROW_CHARACTERS)


def _valid(text: str, limit: int) -> str:
    return text[:limit].encode("utf-8", "replace").decode("utf-8")


def unreadable(path: Path, error: BaseException) -> SourceError:
    """The `SourceError` for a file that cannot be opened or read to its end."""
    hint = "Fetch or write the file again; it may be cut short."
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        hint = "Let the user that RerankOps runs as read it."
    elif isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
        hint = "Put a file there, or correct corpus.path."
    return SourceError(f"{path} cannot be read: {error}", hint)


def is_file(path: Path) -> bool:
    """Whether there is a file. Raises `SourceError` where a folder on the way may not be looked into."""
    try:
        return path.is_file()
    except OSError as error:
        raise unreadable(path, error) from error


def is_folder(path: Path) -> bool:
    """Whether there is a folder. Raises `SourceError` where a folder on the way may not be looked into."""
    try:
        return path.is_dir()
    except OSError as error:
        raise unreadable(path, error) from error


def leads_out(path: Path, folder: Path) -> bool:
    """Whether links on the way to `path` lead out of `folder`, itself taken where it leads."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def require_within(path: Path, folder: Path, key: str) -> Path:
    """`path`. Raises `SourceError` naming it and the settings `key` if it leads out of `folder`: whoever may put a
    link there would else have any file read that RerankOps may read."""
    if leads_out(path, folder):
        raise SourceError(
            f"{key}: {path} leads out of {folder}, and is not followed",
            "Put the file itself there, or set corpus.path to the folder in which it is.",
        )
    return path


def require_file(folder: Path, names: Iterable[str], key: str) -> Path:
    """The first of `names` that exists below `folder`.

    Raises `SourceError` naming the path and the settings `key` where there is none, or links lead out of `folder`.
    """
    names = list(names)
    require_folder(folder)
    for name in names:
        if is_file(folder / name):
            return require_within(folder / name, folder, key)
    raise SourceError(f"{key}: no file {' or '.join(names)} in {folder}", f"Put it there, or correct {key}.")


def require_folder(folder: Path) -> None:
    """Raise `SourceError` if `folder` is not a folder."""
    if not is_folder(folder):
        raise SourceError(f"corpus.path: no folder at {folder}", "Set corpus.path to the folder with the corpus files.")


def digest_files(kind: str, files: Iterable[Path], folder: Path, settings: object = None) -> str:
    """SHA-256 (hex) over the kind of source, the content digests of `files` and the settings that steer the reading.

    Raises `SourceError` naming a file that cannot be read.
    """
    digests = {}
    for path in files:
        try:
            digests[path.relative_to(folder).as_posix()] = digest_file(path)
        except OSError as error:
            raise unreadable(path, error) from error
    return digest_json({"kind": kind, "files": digests, "settings": settings})


def require_extra(extra: str, *modules: str) -> None:
    """Raise `SourceError` that names the extra of RerankOps if one of its modules is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name.partition(".")[0]) is None]
    if missing:
        raise SourceError(
            f"corpus.source: the {extra} extra is not installed ({', '.join(missing)} missing)",
            f"Run `pip install 'rerankops[{extra}]'` in the environment of RerankOps, or `make setup` in a checkout.",
        )
