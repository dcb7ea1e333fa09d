"""The files below a root that fsspec opens: whole or not there, and errors that a person can act on.

Nothing is cached: other processes write too. Credentials are those that the file system's library finds in the
environment; they are in no URL and no message.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from models.errors import ArtifactError
from models.store.durable_files import write_atomically
from models.store.workspace import Workspace

TEMPORARY = "tmp"
"""Place of the folders that processes of this machine work in, below a local root."""

_CLIENTS = ("botocore.", "aiobotocore.", "aiohttp.", "gcsfs.", "google.", "azure.")
"""Modules whose exceptions say that a storage service was not reached or refused."""
_HINT = (
    "Check storage.artifacts, the network, and the credentials in the environment "
    "(for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION)."
)


class Stored(NamedTuple):
    """A file: its bytes, and when it was last written or touched, where the listing says so."""

    bytes: int
    modified: datetime | None


class StoreFiles:
    """Reads and writes files by their place, a path relative to `root`: an fsspec URL or a local path."""

    def __init__(self, root: str) -> None:
        try:
            if "://" in root:
                self._fs, self._root = fsspec.core.url_to_fs(root, use_listings_cache=False)
            else:  # a path, which may have `::` in it
                self._fs, self._root = LocalFileSystem(), str(Path(root).expanduser().absolute())
        except (ImportError, ValueError) as error:
            hint = "S3 needs an extra: pip install 'rerankops[s3]'. Other file systems have libraries of their own."
            raise ArtifactError(f"storage.artifacts: {root} cannot be opened: {error}", hint) from error
        self.root = root
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._workspace = Workspace(self.path(TEMPORARY))

    def path(self, key: str = "") -> Path:
        """Where a place is on this machine; only for a local root."""
        return Path(self._root) / key

    def exists(self, key: str) -> bool:
        """Whether there is a file or folder."""
        with self._reaching():
            return bool(self._fs.exists(self._full(key)))

    def read(self, key: str) -> bytes | None:
        """The content of a file, None if there is none."""
        with self._reaching():
            try:
                return bytes(self._fs.cat_file(self._full(key)))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_json(self, key: str) -> Any:
        """The JSON value of a file, None if there is none."""
        data = self.read(key)
        return None if data is None else json.loads(data)

    def write(self, key: str, data: bytes) -> None:
        """Write a file whole, over what was there. What a kill leaves of it is an abandoned folder of the workspace."""
        if self.is_local:
            target = self.path(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._workspace.folder("write") as folder:
                write_atomically(folder / target.name, data)
                os.replace(folder / target.name, target)
            return
        with self._reaching():
            try:
                self._fs.pipe_file(self._full(key), data)
            except FileNotFoundError as error:
                raise self._unreachable(error) from None

    def touch(self, key: str, data: bytes) -> None:
        """Make a file with this very content as new as one written now."""
        if self.is_local:
            try:
                os.utime(self.path(key))
                return
            except FileNotFoundError:
                pass
        self.write(key, data)

    def modified(self, key: str) -> datetime | None:
        """When a file was last written or touched, UTC; None if there is none."""
        with self._reaching():
            try:
                modified = self._fs.modified(self._full(key))
            except FileNotFoundError:
                return None
        return modified if modified.tzinfo else modified.replace(tzinfo=UTC)

    def upload(self, path: Path, key: str) -> None:
        """Copy a file of this machine to a remote root."""
        with self._reaching():
            try:
                self._fs.put_file(str(path), self._full(key))
            except FileNotFoundError as error:
                raise self._unreachable(error) from None

    def download(self, key: str, path: Path) -> None:
        """Copy a file of a remote root to this machine."""
        with self._reaching():
            self._fs.get_file(self._full(key), str(path))

    def read_all(self, places: Iterable[str]) -> dict[str, bytes]:
        """The content of several files, at once where the file system can; those that are gone are left out."""
        wanted = [*places]
        if self.is_local or not wanted:
            return {key: data for key in wanted if (data := self.read(key)) is not None}
        with self._reaching():
            contents = self._fs.cat([self._full(key) for key in wanted], on_error="return")
        for error in contents.values():
            if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                raise self._unreachable(error) from error
        start = self._start
        return {name[start:]: data for name, data in contents.items() if isinstance(data, bytes)}

    def find(self, folder: str) -> dict[str, Stored]:
        """Every file below a folder, by place; empty if there is no such folder."""
        with self._reaching():
            try:
                listed = self._fs.find(self._full(folder), detail=True)
            except FileNotFoundError:
                return {}
        start = self._start
        return {name[start:]: Stored(int(info.get("size") or 0), _modified(info)) for name, info in listed.items()}

    def delete(self, key: str) -> None:
        """Delete a file, if it is there."""
        with self._reaching():
            try:
                self._fs.rm_file(self._full(key))
            except FileNotFoundError:
                return

    @property
    def _start(self) -> int:
        return len(self._root.rstrip("/")) + 1

    def _full(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else self._root

    @contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            if self.is_local or not (isinstance(error, OSError) or type(error).__module__.startswith(_CLIENTS)):
                raise
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ArtifactError:
        return ArtifactError(f"{self.root}: {type(error).__name__}: {error}", _HINT)


def _modified(info: Mapping[str, Any]) -> datetime | None:
    """The time in an entry of a listing, under the names that S3, Google, Azure and local file systems use."""
    for name in ("LastModified", "last_modified", "updated", "mtime"):
        value = info.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, int | float):
            value = datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None
