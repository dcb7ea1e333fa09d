"""A database: three SELECT statements read through SQLAlchemy."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.base import is_file
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.sources.raw_rows import Row, read_documents, read_judgments, read_queries
from models.corpus.sources.tables import ColumnNames
from models.errors import SourceError
from models.settings import SqlSettings
from models.store.durable_files import digest_json

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult

_SELECT = re.compile(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*(?:select|with|values|table)\b", re.I | re.S)
_PARAMETER = re.compile(r"(?<![:\w$\\]):([\w$]+)(?![:\w$])")
"""What SQLAlchemy takes for a bound parameter."""

_DIGEST_BYTES = 32


class SqlSource:
    """Reads the results of `settings.documents`, `.queries` and `.judgments`, whose columns have our names.

    Nothing is written: only SELECT is taken, the transaction is read-only where the database knows that (PostgreSQL,
    SQLite, MySQL, MariaDB, Oracle), and is rolled back. Rows come from a server-side cursor, `batch_rows` at a time.
    The password comes from the environment and into no message. `folder` is where a relative path of SQLite starts.

    The rows may come in any order, as the tables made of them are sorted; of rows that share an id the first is kept,
    so a statement that can repeat ids should have an ORDER BY. A reading that was cut off is begun anew.
    """

    def __init__(self, settings: SqlSettings, folder: Path, corrections: Corrections = NO_CORRECTIONS) -> None:
        self.settings = settings
        self._corrections = corrections
        self._url = _open_url(settings, folder)
        for name in ("documents", "queries", "judgments", "fingerprint"):
            statement = getattr(settings, name)
            if not statement.strip() and name == "documents":
                raise SourceError("corpus.sql.documents is empty", "Write a SELECT of document_id and text.")
            if statement.strip() and not _SELECT.match(statement):
                raise SourceError(f"corpus.sql.{name} is not a SELECT", "Only SELECT, WITH, VALUES and TABLE are run.")

    def fingerprint(self) -> str:
        """Digest of what `settings.fingerprint` selects, else of all rows whatever their order; and of the settings."""
        if self.settings.fingerprint.strip():
            with self._execute("fingerprint") as rows:
                content: Any = [[str(value) for value in row] for row in rows]
        else:
            content = [self._digest(table) for table in ("documents", "queries", "judgments")]
        return digest_json({"kind": "sql", "content": content, "settings": self.settings.model_dump()})

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents; `source` defaults to the name of the database."""
        return read_documents(self._corrected("documents"), Path(self._url.database or "database").name)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries, none if there is no statement for them."""
        return read_queries(self._corrected("queries"))

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments, none if there is no statement for them."""
        return read_judgments(self._corrected("judgments"))

    def _corrected(self, table: str) -> Iterator[Row | RejectedRow]:
        return self._corrections.over(table, self._rows(table))

    def _rows(self, table: str) -> Iterator[Row]:
        if not getattr(self.settings, table).strip():
            return
        names = ColumnNames({}, f"the SELECT of corpus.sql.{table}, with AS")
        with self._execute(table) as rows:
            columns = names.require(f"corpus.sql.{table}", table, list(rows.keys()))
            places = {ours: list(rows.keys()).index(theirs) for ours, theirs in columns.items()}
            for number, row in enumerate(rows, 1):
                yield f"{table} row {number}", {name: row[index] for name, index in places.items()}

    def _digest(self, table: str) -> str:
        """A digest of the rows of a statement that is the same in any order: the sum of theirs."""
        total = count = 0
        for _, row in self._rows(table):
            count += 1
            data = repr(row).encode("utf-8", "surrogatepass")
            total += int.from_bytes(hashlib.sha256(data).digest(), "big")
        return f"{count}-{total % (1 << (8 * _DIGEST_BYTES)):x}"

    @contextmanager
    def _execute(self, name: str) -> Iterator[CursorResult[Any]]:
        """Run a statement of the settings in a read-only transaction. Raises `SourceError` naming its key."""
        from sqlalchemy import create_engine, event, text
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        errors = (SQLAlchemyError, ImportError, ValueError, TypeError, OverflowError, OSError)
        key = "corpus.sql.url"
        try:
            engine = create_engine(self._url, poolclass=NullPool, hide_parameters=True)
            event.listen(engine, "connect", _keep_bad_text)
            with engine.connect() as connection:
                _make_read_only(connection)
                key = f"corpus.sql.{name}"
                # Colons are no parameters here: there are none.
                statement = text(_PARAMETER.sub(r"\\:\1", getattr(self.settings, name)))
                streaming = connection.execution_options(yield_per=self.settings.batch_rows)
                with streaming.execute(statement) as rows:
                    yield rows
        except errors as error:
            raise self._failed(key, error) from None

    def _failed(self, key: str, error: Exception) -> SourceError:
        """The message of the database without the password, which a driver may have put into it."""
        message = str(getattr(error, "orig", None) or error).strip()
        if self._url.password:
            message = message.replace(str(self._url.password), "***")
        return SourceError(
            f"{key}: {message}",
            f"The database is {self._url.render_as_string(hide_password=True)}, "
            f"its password what the environment variable {self.settings.password_env} holds.",
        )


def _open_url(settings: SqlSettings, folder: Path) -> URL:
    """The URL with the password of the environment; SQLite files are opened for reading only, and must exist."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(settings.url)
    except ArgumentError as error:
        raise SourceError(
            f"corpus.sql.url: {settings.url!r} is no SQLAlchemy URL",
            "Write it as in postgresql+psycopg://reader@host/shop.",
        ) from error
    if url.get_backend_name() != "sqlite":
        return url.set(password=os.environ.get(settings.password_env))
    path = (folder / (url.database or "")).absolute()
    if not is_file(path):
        raise SourceError(f"corpus.sql.url: no file at {path}", "A relative path starts at corpus.path.")
    return url.set(database=f"file:{quote(str(path))}").update_query_dict({"mode": "ro", "uri": "true"})


def _make_read_only(connection: Connection) -> None:
    backend = connection.dialect.name
    if backend == "postgresql":
        connection.execution_options(postgresql_readonly=True)
    elif backend == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    elif backend in ("mysql", "mariadb", "oracle"):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _keep_bad_text(connection: Any, _: Any) -> None:
    """SQLite hands out text that is not UTF-8, for the contract to refuse its row instead of the driver all of them."""
    if type(connection).__module__.startswith("sqlite3"):
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
