"""A folder of Markdown, HTML, PDF and plain text files, each of them a document."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from models.contracts.rows import Document, Judgment, Query, RejectedRow, Rule
from models.corpus.parsing.parsers import KINDS, PARSER_MODULES, Parsed, ParseError
from models.corpus.parsing.process import ParserProcess
from models.corpus.sources.base import (
    digest_files,
    is_file,
    leads_out,
    rejected,
    require_extra,
    require_folder,
    require_within,
    row_digest,
    unreadable,
)
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.sources.raw_rows import Row, read_documents, read_judgments, read_queries
from models.corpus.sources.tables import ColumnNames, read_table_file, require_table
from models.errors import SourceError
from models.settings import MAX_DECOMPRESSED_BYTES, FolderSettings
from models.store.durable_files import digest_json

_PARSERS = ("markdown-it-py", "selectolax", "pypdf", "PyYAML")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class _File:
    """A file below the folder; `refused` says why it is not read, if it is not."""

    path: Path
    document_id: str
    refused: str = ""


class FolderSource:
    """Reads the files below a folder that are documents by the end of their name, in the order of their paths.

    A document's id is its path in the folder. Its title is that of the front matter, else the first heading, HTML title
    or PDF metadata, else the name of the file. A YAML front matter may state `title`, `source`, `access` and
    `updated_at`. Hidden files and folders are passed over, links are not followed (one that leads out of the folder is
    rejected, one within it is read where it leads to). Each file is parsed under limits in a process of its own.

    Queries and judgments are tables in the folder, as of `FilesSource`; without them nothing can be trained or
    evaluated, only retrieved.

    The same files give the same rows in the same order; a reading that was cut off is begun anew, see `CorpusSource`.
    """

    def __init__(
        self,
        folder: Path,
        settings: FolderSettings,
        max_decompressed: int = MAX_DECOMPRESSED_BYTES,
        corrections: Corrections = NO_CORRECTIONS,
    ) -> None:
        require_folder(folder)
        require_extra("sources", *PARSER_MODULES)
        self.folder = folder
        self.settings = settings
        self._max_decompressed = max_decompressed
        self._corrections = corrections
        self._names = ColumnNames(settings.columns, "corpus.folder.columns")
        self._tables = {
            "queries": self._table("queries", settings.queries),
            "judgments": self._table("judgments", settings.judgments),
        }
        for suffix in settings.suffixes:
            if not suffix.startswith("."):
                raise SourceError(f"corpus.folder.suffixes: {suffix!r} does not begin with a dot", "Write it as '.md'.")

    def fingerprint(self) -> str:
        """Digest of the paths and contents of all files, their times where they count, the settings and the parsers."""
        digest = hashlib.sha256()
        for file in self._files():
            state = file.refused or _digest(file.path, self.settings.max_file_bytes)
            modified = _modified(file.path) if self.settings.modified_times else ""
            digest.update(digest_json([os.fsencode(file.document_id).hex(), state, modified]).encode())
        tables = [path for path in self._tables.values() if path is not None]
        parsers = {name: metadata.version(name) for name in _PARSERS}
        settings = {"settings": self.settings.model_dump(), "parsers": parsers, "files": digest.hexdigest()}
        return digest_files("folder", tables, self.folder, settings)

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield one document for each file. Raises `SourceError` when there is no file or a folder cannot be read."""
        return read_documents(self._corrections.over("documents", self._parsed()), self.folder.name)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries of the table in the folder, if there is one."""
        return read_queries(self._rows("queries"))

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments of the table in the folder, if there is one."""
        return read_judgments(self._rows("judgments"))

    def _table(self, table: str, name: str) -> Path | None:
        path = self.folder / name
        require_table(path, f"corpus.folder.{table}")
        if is_file(path):
            return require_within(path, self.folder, f"corpus.folder.{table}")
        if name != FolderSettings.model_fields[table].default:
            raise SourceError(f"corpus.folder.{table}: no file {name} in {self.folder}", "Put it there, or correct it.")
        return None

    def _rows(self, table: str) -> Iterator[Row | RejectedRow]:
        path = self._tables[table]
        if path is not None:
            rows = read_table_file(path, table, self._names, self._max_decompressed)
            yield from self._corrections.over(table, rows)

    def _parsed(self) -> Iterator[Row | RejectedRow]:
        limits = self.settings
        empty = True
        with ParserProcess(limits.parse_seconds, limits.parse_memory_mb, limits.max_text_characters) as parser:
            for file in self._files():
                empty = False
                yield self._read(file, parser)
        if empty:
            raise SourceError(
                f"no file that ends in {', '.join(limits.suffixes)} in {self.folder}",
                "Correct corpus.path or corpus.folder.suffixes.",
            )

    def _files(self) -> Iterator[_File]:
        suffixes = tuple(suffix.lower() for suffix in self.settings.suffixes)
        tables = {path for path in self._tables.values() if path is not None}
        pending = [self.folder]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError as error:
                raise unreadable(folder, error) from error
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith(".") or path in tables:
                    continue
                if entry.is_symlink():
                    counts = path.is_dir() or entry.name.lower().endswith(suffixes)
                    if counts and leads_out(path, self.folder):
                        yield self._file(path, "a link that leads out of the folder is not followed")
                elif entry.is_file() and entry.name.lower().endswith(suffixes):
                    yield self._file(path)
            pending += [
                folder / entry.name
                for entry in reversed(entries)
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ]

    def _file(self, path: Path, refused: str = "") -> _File:
        return _File(path, path.relative_to(self.folder).as_posix(), refused)

    def _read(self, file: _File, parser: ParserProcess) -> Row | RejectedRow:
        if file.refused:
            return self._rejected(file, file.refused, "unreadable")
        kind = KINDS.get(file.path.suffix.lower(), "text")
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            return self._rejected(file, f"cannot be read: {error.strerror}", "unreadable")
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ParseError("not a regular file", "unreadable")
            if state.st_size > self.settings.max_file_bytes:
                raise ParseError(
                    f"{state.st_size:,} bytes are more than corpus.folder.max_file_bytes = "
                    f"{self.settings.max_file_bytes:,}",
                    "too_long",
                )
            parsed = parser.parse(kind, descriptor)
        except ParseError as error:
            return self._rejected(file, str(error), error.rule)
        finally:
            os.close(descriptor)
        return file.document_id, self._record(file, parsed)

    def _rejected(self, file: _File, reason: str, rule: Rule) -> RejectedRow:
        digest = row_digest(file.refused or _digest(file.path, self.settings.max_file_bytes))
        return rejected("documents", reason, file.document_id, rule=rule, digest=digest)

    def _record(self, file: _File, parsed: Parsed) -> dict[str, Any]:
        """The raw row of a file. Labels that are left empty are not stated: the folder's own hold."""
        access = parsed.front.get("access", "")
        modified = _modified(file.path) if self.settings.modified_times else None
        return {
            "document_id": file.document_id,
            "title": parsed.title or file.path.stem,
            "text": parsed.text,
            "source": parsed.front.get("source"),
            "access": self.settings.access if access == "" else access,
            "updated_at": parsed.front.get("updated_at") or modified,
        }


def _modified(path: Path) -> str | None:
    """When a file was last written, to the second, UTC."""
    try:
        return datetime.fromtimestamp(int(path.lstat().st_mtime), UTC).isoformat()
    except (OSError, ValueError, OverflowError):
        return None


def _digest(path: Path, max_bytes: int) -> str:
    """SHA-256 (hex) of a file that is read, the size of one too large, or why it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with io.FileIO(descriptor) as file:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                return f"{size} bytes"
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"
