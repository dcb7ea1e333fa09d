"""Durable file writes: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import ArtifactError

_BLOCK = 1 << 20
_STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
_SQLITE = ("attempt to write a readonly", "unable to open", "database or disk is full", "disk I/O error")


def write_atomically(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part.

    Without a `mode` the file is one that may be read and written, less what the umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Hard-link `source`, a file that nothing changes any more, or copy it where links cannot be had."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no NaN: the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def digest_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def storage_problem(error: BaseException) -> str | None:
    """What an error says of a place that cannot be written: full, read-only or another user's. None of other errors."""
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith(_SQLITE):
        return f"a SQLite database: {error}"
    return None


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn what a full disk and its like raise, also of SQLite, into an `ArtifactError` naming `path`."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise ArtifactError(
            f"{path} cannot be written: {error}", "Free space on that disk and run again; nothing was half-written."
        ) from error
