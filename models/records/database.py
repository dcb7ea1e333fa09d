"""The SQL database of records that change: releases, gate decisions, decisions, incidents, corrections.

SQLite (WAL) by default, PostgreSQL by URL. The tables below and the scripts in `models/records/migrations` say the
same; a test holds them together.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from models.errors import RerankOpsError, SettingsError

if TYPE_CHECKING:
    from alembic.config import Config

    from models.settings import Settings

VERSION_TABLE = "rerankops_version"
"""Alembic's table gets a name of its own, since MLflow and Dagster may live in the same database with theirs."""
_MIGRATIONS = Path(__file__).resolve().parent / "migrations"
_BUSY_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10
_MIGRATION_LOCK = 0x72657261  # PostgreSQL advisory lock: the same number in every process that migrates.
_LOCK_LOOK_S = 0.1
_LOCK_TRANSACTION = (
    # It may last for hours. It has read nothing by then, so that it keeps no row from being vacuumed.
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    # A host that is gone holds it for a minute and a half, not for the two hours of TCP's own.
    "SET LOCAL tcp_keepalives_idle = 60",
    "SET LOCAL tcp_keepalives_interval = 10",
    "SET LOCAL tcp_keepalives_count = 3",
)
_ALEMBIC = threading.Lock()  # alembic.context is a module-wide proxy: one migration at a time in a process.


class DatabaseError(RerankOpsError):
    """The database cannot be reached, is locked, or has a schema that this version does not know."""


class DatabaseUnreachable(DatabaseError):
    """It cannot be reached now, or is locked: trying again later may help."""


class Database:
    """Transactions on one database; the URL's password is never shown.

    `url` is `sqlite:///file` (relative to the working directory of this call) or `postgresql+psycopg://...`. Nothing
    is opened before the first transaction. Threads may share it. Raises `SettingsError` for a URL of another kind.
    """

    def __init__(self, url: str) -> None:
        self._engine = _create_engine(_parse(url))
        self.name = self._engine.url.render_as_string(hide_password=True)
        self._write = sessionmaker(self._engine, expire_on_commit=False)
        self._reading = self._engine.execution_options(sqlite_read_only=True, postgresql_readonly=True)
        self._read = sessionmaker(self._reading, expire_on_commit=False)

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        A writer takes SQLite's write lock at once (BEGIN IMMEDIATE), so it never fails half-way for a lock; a reader
        never waits for writers. Raises `DatabaseError` if the database cannot be reached or stays locked for 30 s.
        """
        with (self._read if read_only else self._write)() as session, session.begin():
            try:
                session.connection()
            except (OperationalError, InterfaceError, PoolTimeoutError) as error:
                raise self._unreachable(error) from None
            yield session

    def migrate(self) -> None:
        """Bring the schema to this version's, making a SQLite file and its folder. Several processes may do so at once.

        Raises `DatabaseUnreachable` if the database cannot be reached, and `DatabaseError` if its schema is of a newer
        version.
        """
        from alembic import command
        from alembic.script import ScriptDirectory

        if self.dialect == "sqlite":
            self._prepare_file()
        config = _alembic_config()
        script = ScriptDirectory.from_config(config)
        try:
            with self._reading.connect() as connection:
                if self._is_current(connection, script):
                    return
            with _ALEMBIC, self._engine.begin() as connection:
                if self.dialect == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                if not self._is_current(connection, script):
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise self._unreachable(error) from None

    @contextmanager
    def lock(self, name: str, wait_s: float = float("inf"), waits: Callable[[], None] | None = None) -> Iterator[bool]:
        """Hold `name` against all others that use this database, in whichever home or on whichever host, until the
        block or the process ends. False where another held it for `wait_s` seconds; `waits` is called before any wait.

        It blocks nobody but who asks for the same name. Raises `DatabaseError` if the database cannot be reached.
        """
        with ExitStack() as held:
            is_free = self._lock_file(held, name) if self.dialect == "sqlite" else self._advisory_lock(held, name)
            until = time.monotonic() + wait_s
            if not (is_held := is_free()) and waits is not None:
                waits()
            while not is_held and time.monotonic() < until:
                time.sleep(_LOCK_LOOK_S)
                is_held = is_free()
            yield is_held

    def close(self) -> None:
        """Close the connections; a later transaction opens new ones."""
        self._engine.dispose()

    def _is_current(self, connection: Connection, script: Any) -> bool:
        from alembic.runtime.migration import MigrationContext

        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        applied = context.get_current_revision()
        if applied is not None and applied not in {revision.revision for revision in script.walk_revisions()}:
            raise DatabaseError(
                f"{self.name}: the schema is at revision {applied}, which this version of RerankOps does not know",
                "A newer version has migrated it: run that version, or restore a backup from before.",
            )
        return applied == script.get_current_head()

    def _lock_file(self, held: ExitStack, name: str) -> Callable[[], bool]:
        """A look whether the lock is this process's, of a file beside the database."""
        handle = os.open(f"{self._engine.url.database}.{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        held.callback(os.close, handle)

        def is_free() -> bool:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        return is_free

    def _advisory_lock(self, held: ExitStack, name: str) -> Callable[[], bool]:
        """The same of PostgreSQL. Of a transaction, so that a pool of connections before the server cannot keep it."""
        try:
            connection = self._engine.connect()
            held.callback(connection.close)
            held.callback(connection.invalidate)  # Not rolled back, which a connection that was lost cannot be.
            for statement in _LOCK_TRANSACTION:
                connection.execute(text(statement))
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise self._unreachable(error) from None
        key = {"space": _MIGRATION_LOCK, "name": zlib.crc32(name.encode()) >> 1}

        def is_free() -> bool:
            try:
                return bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:space, :name)"), key))
            except (OperationalError, InterfaceError) as error:
                raise self._unreachable(error) from None

        return is_free

    def _prepare_file(self) -> None:
        file = Path(self._engine.url.database or "")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _switch_to_wal(file)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseUnreachable(
                f"{self.name}: {error}", "Check the path, its permissions and the free space."
            ) from error

    def _unreachable(self, error: Exception) -> DatabaseUnreachable:
        cause = str(getattr(error, "orig", None) or error).strip()
        if self._engine.url.password:
            cause = cause.replace(str(self._engine.url.password), "***")
        return DatabaseUnreachable(
            f"{self.name}: {cause}", "Check storage.database_url and that the database is running."
        )


def _parse(url: str) -> URL:
    hint = (
        "Write sqlite:///path/to/file.db or postgresql+psycopg://user:password@host:5432/name, with special characters "
        "of the password percent-encoded (@ is %40, : is %3A, / is %2F)."
    )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The cause is left out: it quotes the URL, password and all.
        raise SettingsError("storage.database_url: not a database URL", hint) from None
    if "@" in (parsed.host or ""):
        raise SettingsError("storage.database_url: the host has an @ in it", hint)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise SettingsError(f"storage.database_url: {parsed.drivername} is not supported", hint)
    if parsed.get_backend_name() == "postgresql":
        return parsed
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise SettingsError("storage.database_url: SQLite needs a file, as records must outlive the process", hint)
    return parsed.set(database=str(Path(parsed.database).expanduser().absolute()))


def _create_engine(url: URL) -> Engine:
    serializer = partial(json.dumps, allow_nan=False, ensure_ascii=True)
    shared: dict[str, Any] = {"json_serializer": serializer, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, **shared)
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
        return engine
    defaults = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "tcp_user_timeout": int(_BUSY_TIMEOUT_S * 1000),
        "application_name": "rerankops",
    }
    arguments = {name: value for name, value in defaults.items() if name not in url.query}
    # Passwords in the query part of the URL would be shown with it.
    hidden = {name: value for name, value in url.query.items() if "password" in name}
    url = url.difference_update_query(hidden)
    try:
        return create_engine(url, connect_args=arguments | hidden, pool_pre_ping=True, **shared)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise SettingsError(
            "storage.database_url: the PostgreSQL driver is not installed",
            "Install it: pip install 'psycopg[binary]>=3.2'.",
        ) from None


def _on_sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
    # SQLAlchemy's way to take transactions from the driver, which would begin them late and not for DDL:
    # https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#enabling-non-legacy-sqlite-transactional-modes-with-the-sqlite3-driver
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _on_sqlite_begin(connection: Connection) -> None:
    read_only = bool(connection.get_execution_options().get("sqlite_read_only"))
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _switch_to_wal(file: Path) -> None:
    """Set the journal mode, which stays with the file. SQLite does not wait for other openers here, so this does."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    connection = sqlite3.connect(file, timeout=_BUSY_TIMEOUT_S)
    try:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    finally:
        connection.close()


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    # ConfigParser reads % as interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The records of a deployment, migrated to the newest schema, until the block ends."""
    database = Database(settings.database_url)
    try:
        database.migrate()
        yield database
    finally:
        database.close()
