"""Text files read line by line, plain or gzipped, where a bad line costs that line and no more."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from models.errors import SourceError
from models.sources.base import rejected
from models.types import RejectedRow

MAX_LINE_BYTES = 10_000_000
_BOM = b"\xef\xbb\xbf"


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, through gzip if its name ends in .gz."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def read_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Yield (line number from 1, line without its end) of a file; None stands for a line over `max_bytes`.

    Memory stays below `max_bytes` whatever the file. Raises `SourceError` when the file breaks off or is not gzip.
    """
    try:
        with open_bytes(path) as file:
            number = 0
            while line := file.readline(max_bytes + 1):
                number += 1
                if len(line) > max_bytes:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(max_bytes)
                    yield number, None
                    continue
                yield number, line.removeprefix(_BOM if number == 1 else b"").rstrip(b"\r\n")
    except (EOFError, OSError, zlib.error) as error:
        raise SourceError(
            f"{path} cannot be read: {error}", "Fetch or write the file again; it may be cut short."
        ) from error


def read_text_lines(path: Path, table: str, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[str, str] | RejectedRow]:
    """Yield (position, text) of the lines that are not blank; lines too long or not UTF-8 come as `RejectedRow`."""
    for number, line in read_lines(path, max_bytes):
        position = f"{path.name}:{number}"
        if line is None:
            yield rejected(table, f"line is longer than {max_bytes:,} bytes", position)
        elif line.strip():
            try:
                yield position, line.decode("utf-8")
            except UnicodeDecodeError as error:
                yield rejected(table, f"not UTF-8 at byte {error.start} of the line", position, line)


def read_json_lines(path: Path, table: str) -> Iterator[tuple[str, dict[str, Any]] | RejectedRow]:
    """Yield (position, object) of a JSON Lines file; lines that hold no JSON object come as `RejectedRow`."""
    for item in read_text_lines(path, table):
        if isinstance(item, RejectedRow):
            yield item
            continue
        position, line = item
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield rejected(table, f"not JSON: {error}", position, line)
            continue
        if isinstance(value, dict):
            yield position, value
        else:
            yield rejected(table, f"a JSON object is expected, not {type(value).__name__}", position, line)
