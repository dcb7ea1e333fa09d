"""The SQL database of records that change: releases, gate decisions, decisions, incidents, corrections.

SQLite (WAL) by default, PostgreSQL by URL. The tables below and the scripts in `models/migrations` say the same; a test
holds them together.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import (
    JSON,
    URL,
    CheckConstraint,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

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
_ALEMBIC = threading.Lock()  # alembic.context is a module-wide proxy: one migration at a time in a process.


class DatabaseError(RerankOpsError):
    """The database cannot be reached, is locked, or has a schema that this version does not know."""


class UtcDateTime(TypeDecorator[datetime]):
    """Times with an offset, kept in UTC; a time without an offset is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no offset: which time zone?")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite gives the UTC time back without its offset."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of the tables, with constraint names that are the same on both databases."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
    }
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class GateDecisionRow(Base):
    """What the gate said about a candidate, with every number it looked at. Triggers refuse updates and deletes."""

    __tablename__ = "gate_decisions"
    __table_args__ = (CheckConstraint("verdict IN ('released', 'refused', 'current')", name="verdict"),)

    decision_id: Mapped[str] = mapped_column(primary_key=True)
    candidate_version: Mapped[str] = mapped_column(index=True)
    champion_version: Mapped[str | None]
    verdict: Mapped[str]
    checks: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class ReleaseRow(Base):
    """A row of the release ledger. Triggers refuse every change but pending -> active and pending -> abandoned."""

    __tablename__ = "releases"
    __table_args__ = (
        CheckConstraint("action IN ('release', 'rollback')", name="action"),
        CheckConstraint("state IN ('pending', 'active', 'abandoned')", name="state"),
        CheckConstraint("(action = 'rollback') = (restores_release_id IS NOT NULL)", name="restores"),
        CheckConstraint("(state = 'active') = (activated_at IS NOT NULL)", name="activated"),
        Index(
            "uq_releases_one_pending",
            "state",
            unique=True,
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    release_id: Mapped[str] = mapped_column(unique=True)
    action: Mapped[str]
    state: Mapped[str]
    bundle_version: Mapped[str]
    model_version: Mapped[str]
    index_version: Mapped[str]
    corpus_version: Mapped[str]
    large_version: Mapped[str]
    compact_version: Mapped[str]
    settings_digest: Mapped[str]
    gate_decision_id: Mapped[str | None] = mapped_column(ForeignKey("gate_decisions.decision_id"))
    previous_release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.release_id"))
    restores_release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.release_id"))
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]


class DecisionRow(Base):
    """One answered request: the columns to look it up by, and the whole record."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "time", "decision_id"),)

    decision_id: Mapped[str] = mapped_column(primary_key=True)
    trace_id: Mapped[str] = mapped_column(index=True)
    time: Mapped[datetime]
    endpoint: Mapped[str]
    caller: Mapped[str]
    release_id: Mapped[str]
    model_version: Mapped[str]
    degraded: Mapped[bool]
    query: Mapped[str] = mapped_column(Text)
    record: Mapped[dict[str, Any]]


class IncidentRow(Base):
    """Something that a person should look at; open until `closed` is set."""

    __tablename__ = "incidents"
    __table_args__ = (
        CheckConstraint("kind IN ('drift', 'slo', 'gate', 'rollback', 'fault')", name="kind"),
        Index(
            "uq_incidents_one_open",
            "dedupe_key",
            unique=True,
            sqlite_where=text("closed IS NULL"),
            postgresql_where=text("closed IS NULL"),
        ),
    )

    incident_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    opened: Mapped[datetime] = mapped_column(index=True)
    evidence: Mapped[dict[str, Any]]
    dedupe_key: Mapped[str | None]
    closed: Mapped[datetime | None]


class CorrectionRow(Base):
    """A correction of a quarantined row, in force until it is withdrawn. Triggers refuse every other change."""

    __tablename__ = "corrections"
    __table_args__ = (
        CheckConstraint("table_name IN ('documents', 'queries', 'judgments')", name="table_name"),
        CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name="withdrawn"),
        Index(
            "uq_corrections_one_in_force",
            "source",
            "table_name",
            "position",
            unique=True,
            sqlite_where=text("withdrawn_at IS NULL"),
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    correction_id: Mapped[str] = mapped_column(index=True)
    source: Mapped[str]
    table_name: Mapped[str]
    position: Mapped[str] = mapped_column(Text)
    digest: Mapped[str]
    row: Mapped[dict[str, Any]]
    replaces: Mapped[dict[str, Any]]
    actor: Mapped[str]
    note: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]
    withdrawn_note: Mapped[str | None] = mapped_column(Text)


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

        Raises `DatabaseError` if the database cannot be reached, or its schema is of a newer version.
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

    def close(self) -> None:
        """Close the connections; a later transaction opens new ones."""
        self._engine.dispose()

    def _is_current(self, connection: Connection, script: Any) -> bool:
        from alembic.runtime.migration import MigrationContext

        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = context.get_current_revision()
        if found is not None and found not in {revision.revision for revision in script.walk_revisions()}:
            raise DatabaseError(
                f"{self.name}: the schema is at revision {found}, which this version of RerankOps does not know",
                "A newer version has migrated it: run that version, or restore a backup from before.",
            )
        return found == script.get_current_head()

    def _prepare_file(self) -> None:
        file = Path(self._engine.url.database or "")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _switch_to_wal(file)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(
                f"{self.name}: {error}", "Check the path, its permissions and the free space."
            ) from error

    def _unreachable(self, error: Exception) -> DatabaseError:
        cause = str(getattr(error, "orig", None) or error).strip()
        if self._engine.url.password:
            cause = cause.replace(str(self._engine.url.password), "***")
        return DatabaseError(f"{self.name}: {cause}", "Check storage.database_url and that the database is running.")


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
