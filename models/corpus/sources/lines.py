"""Text files read line by line, plain or gzipped, where a bad line costs that line and no more."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from models.contracts.rows import RejectedRow
from models.corpus.sources.base import ROW_CHARACTERS, rejected, unreadable
from models.errors import SourceError
from models.settings import MAX_DECOMPRESSED_BYTES

MAX_LINE_BYTES = 10_000_000
_BOM = b"\xef\xbb\xbf"


class LongLine(NamedTuple):
    """A line over the limit: how it starts, and the digest of all of it."""

    start: bytes
    digest: str


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, through gzip if its name ends in .gz."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def read_lines(
    path: Path,
    max_bytes: int = MAX_LINE_BYTES,
    max_decompressed: int = MAX_DECOMPRESSED_BYTES,
    *,
    keep_ends: bool = False,
) -> Iterator[tuple[int, bytes | LongLine]]:
    """Yield (line number from 1, line) of a file; a line over `max_bytes` comes as `LongLine`.

    Lines come without their end unless `keep_ends`. Memory stays below `max_bytes` whatever the file. Raises
    `SourceError` when the file cannot be opened, breaks off, is not gzip, or, gzipped, expands to more than
    `max_decompressed` bytes.
    """
    limit = max_decompressed if path.suffix == ".gz" else None
    try:
        with open_bytes(path) as file:
            number = size = 0
            while line := file.readline(max_bytes + 1):
                number += 1
                size += len(line)
                _check_size(path, size, limit)
                if len(line) > max_bytes:
                    start, digest = line[:ROW_CHARACTERS], hashlib.blake2b(line, digest_size=12)
                    while line and not line.endswith(b"\n"):
                        line = file.readline(max_bytes)
                        size += len(line)
                        digest.update(line)
                        _check_size(path, size, limit)
                    yield number, LongLine(start, digest.hexdigest())
                    continue
                line = line.removeprefix(_BOM if number == 1 else b"")
                yield number, line if keep_ends else line.rstrip(b"\r\n")
    except (EOFError, OSError, zlib.error) as error:
        raise unreadable(path, error) from error


def read_text_lines(
    path: Path, table: str, max_bytes: int = MAX_LINE_BYTES, max_decompressed: int = MAX_DECOMPRESSED_BYTES
) -> Iterator[tuple[str, str] | RejectedRow]:
    """Yield (position, text) of the lines that are not blank; lines too long or not UTF-8 come as `RejectedRow`."""
    for number, line in read_lines(path, max_bytes, max_decompressed):
        position = f"{path.name}:{number}"
        if isinstance(line, LongLine):
            reason = f"line is longer than {max_bytes:,} bytes"
            yield rejected(table, reason, position, line.start, rule="too_long", digest=line.digest)
        elif line.strip():
            try:
                yield position, line.decode("utf-8")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8 at byte {error.start} of the line"
                yield rejected(table, reason, position, line, rule="encoding")


def read_json_lines(
    path: Path, table: str, max_decompressed: int = MAX_DECOMPRESSED_BYTES
) -> Iterator[tuple[str, dict[str, Any]] | RejectedRow]:
    """Yield (position, object) of a JSON Lines file; lines that hold no JSON object come as `RejectedRow`."""
    for item in read_text_lines(path, table, max_decompressed=max_decompressed):
        if isinstance(item, RejectedRow):
            yield item
            continue
        position, line = item
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield rejected(table, f"not JSON: {error}", position, line, rule="malformed")
            continue
        if isinstance(value, dict):
            yield position, value
        else:
            reason = f"a JSON object is expected, not {type(value).__name__}"
            yield rejected(table, reason, position, line, rule="malformed")


def too_large(path: Path, limit: int) -> SourceError:
    """The `SourceError` for a file that expands to more than it may."""
    hint = "Raise corpus.max_decompressed_bytes if the file is meant to be so large."
    return SourceError(f"{path} expands to more than {limit:,} bytes", hint)


def _check_size(path: Path, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise too_large(path, limit)
