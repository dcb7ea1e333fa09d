from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert, inspect, text
from sqlalchemy.exc import IntegrityError, StatementError

from models.errors import SettingsError
from models.records.database import VERSION_TABLE, Database, DatabaseError
from models.records.incidents import close_incident
from models.records.tables import Base, DecisionRow, GateDecisionRow, IncidentRow
from models.settings import ROOT
from tests.databases import RunPython, start_together

NEWEST = "0006"
"""The last migration."""
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

MIGRATE = """
import sys
import alembic.command
from models.records.database import Database
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
database.migrate()
database.close()
"""


def gate_row(decision_id: str, when: datetime = NOON) -> GateDecisionRow:
    return GateDecisionRow(
        decision_id=decision_id,
        candidate_version="b1",
        champion_version=None,
        verdict="released",
        checks={},
        created_at=when,
    )


def revisions(url: str) -> list[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        result = list(connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")))
    engine.dispose()
    return result


def test_the_migrations_make_the_tables_that_the_models_say(database: Database, database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_migrations_make_the_constraints_that_the_models_say(
    database: Database, database_url: str, new_database_url: Callable[[], str]
) -> None:
    # Autogenerate compares neither check constraints nor the condition of a partial index.
    by_models = create_engine(new_database_url())
    Base.metadata.create_all(by_models)
    by_migrations = create_engine(database_url)
    wanted, result = inspect(by_models), inspect(by_migrations)
    for table in Base.metadata.tables:
        for reflect in (
            "get_check_constraints",
            "get_indexes",
            "get_unique_constraints",
            "get_foreign_keys",
            "get_pk_constraint",
        ):
            said = json.dumps(getattr(wanted, reflect)(table), default=str, sort_keys=True)
            assert json.dumps(getattr(result, reflect)(table), default=str, sort_keys=True) == said, (table, reflect)
        assert wanted.get_check_constraints(table) or table == "decisions"
    by_models.dispose()
    by_migrations.dispose()


def test_a_table_that_the_migrations_lack_would_be_found(database: Database, database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE incidents DROP COLUMN evidence"))
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        (difference,) = compare_metadata(context, Base.metadata)
        assert difference[0] == "add_column"
    engine.dispose()


def test_migrate_twice_changes_nothing(database: Database, database_url: str) -> None:
    with database.session() as session:
        session.add(gate_row("g-1"))
    database.migrate()
    assert revisions(database_url) == [NEWEST]
    with database.session(read_only=True) as session:
        assert session.get(GateDecisionRow, "g-1") is not None


def test_incidents_of_before_are_kept_when_the_table_is_made_anew(database_url: str) -> None:
    engine = create_engine(database_url)
    config = Config(ROOT / "models" / "records" / "migrations" / "alembic.ini")

    def migrate(revision: str, change: Callable[[Config, str], None] = command.upgrade) -> None:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            change(config, revision)

    def kinds() -> list[tuple[str, str | None]]:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT kind, dedupe_key FROM incidents ORDER BY incident_id"))
            return [tuple(row) for row in rows]

    migrate("0002")
    with engine.begin() as connection:
        for number, kind in enumerate(("slo", "drift")):
            values = {"incident_id": f"i-{number}", "kind": kind, "opened": NOON, "evidence": {}, "dedupe_key": kind}
            connection.execute(insert(Base.metadata.tables["incidents"]).values(values))
    migrate("head")
    assert kinds() == [("fault", "slo"), ("drift", "drift")]
    shared = Database(database_url)
    closed = close_incident(shared, "i-1", actor="ann", note="a holiday")
    assert (closed.opened, closed.closed_by, closed.closed_note) == (NOON, "ann", "a holiday")
    with pytest.raises(IntegrityError), shared.session() as session:
        session.execute(text("UPDATE incidents SET kind = 'slo'"))
    shared.close()
    migrate("0002", command.downgrade)
    assert kinds() == [("fault", "slo"), ("drift", "drift")]
    engine.dispose()


def test_processes_that_start_at_once_all_migrate(database_url: str, run_python: RunPython) -> None:
    processes = [run_python(MIGRATE, database_url) for _ in range(2)]
    start_together(processes)
    assert revisions(database_url) == [NEWEST]


def test_threads_that_start_at_once_all_migrate(database_url: str) -> None:
    shared = Database(database_url)
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        try:
            barrier.wait()
            shared.migrate()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert failures == []
    assert revisions(database_url) == [NEWEST]


def test_the_tables_of_others_and_their_alembic_version_are_left_alone(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('of-mlflow')"))
    shared = Database(database_url)
    shared.migrate()
    shared.close()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "of-mlflow"
    engine.dispose()
    assert revisions(database_url) == [NEWEST]


def test_a_schema_from_a_newer_version_is_refused(database: Database) -> None:
    with database.session() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="9999, which this version"):
        database.migrate()


def test_migrate_works_from_any_folder_and_makes_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Database("sqlite:///some/folder/records.db")
    monkeypatch.chdir("/")
    relative.migrate()
    relative.close()
    assert (tmp_path / "some" / "folder" / "records.db").is_file()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatabaseError, match="Check the path"):
        Database(f"sqlite:///{tmp_path / 'file' / 'records.db'}").migrate()


def test_sqlite_runs_with_wal_and_foreign_keys(tmp_path: Path) -> None:
    records = Database(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()
    with records.session() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    records.close()
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_sqlite_writer_holds_the_write_lock_from_the_start_and_readers_go_on(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    records = Database(f"sqlite:///{file}")
    records.migrate()
    other = sqlite3.connect(file, timeout=0, isolation_level=None)
    with records.session(), records.session(read_only=True) as reading:
        assert reading.scalar(text("SELECT count(*) FROM incidents")) == 0
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()
    records.close()


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.session() as session:  # noqa: PT012 - the block is what is tested
        session.add(gate_row("g-1"))
        session.flush()
        raise RuntimeError
    with database.session(read_only=True) as session:
        assert session.get(GateDecisionRow, "g-1") is None


def test_a_read_only_session_cannot_write_and_the_next_one_can(database: Database) -> None:
    with pytest.raises(StatementError), database.session(read_only=True) as session:
        session.add(gate_row("g-1"))
    with database.session() as session:
        session.add(gate_row("g-1"))


def test_gate_decisions_can_be_neither_changed_nor_deleted(database: Database) -> None:
    with database.session() as session:
        session.add(gate_row("g-1"))
    for statement in ("UPDATE gate_decisions SET verdict = 'refused'", "DELETE FROM gate_decisions"):
        with pytest.raises(IntegrityError, match="append-only"), database.session() as session:
            session.execute(text(statement))


@pytest.mark.parametrize("offset_hours", [-11, 0, 5.5])
def test_times_come_back_in_utc(database: Database, offset_hours: float) -> None:
    there = timezone(timedelta(hours=offset_hours))
    with database.session() as session:
        session.add(gate_row("g-1", NOON.astimezone(there) + timedelta(microseconds=1)))
    with database.session(read_only=True) as session:
        row = session.get(GateDecisionRow, "g-1")
        assert row is not None
        assert row.created_at == NOON + timedelta(microseconds=1)
        assert row.created_at.utcoffset() == timedelta(0)


def test_times_without_an_offset_are_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="no offset"), database.session() as session:
        session.add(gate_row("g-1", NOON.replace(tzinfo=None)))


def test_numbers_that_json_lacks_are_refused_on_both_databases(database: Database) -> None:
    row = IncidentRow(incident_id="i", kind="drift", opened=NOON, evidence={"share": float("nan")}, dedupe_key=None)
    with pytest.raises((StatementError, ValueError), match="JSON"), database.session() as session:
        session.add(row)


def test_errors_do_not_quote_the_values_of_a_record(database: Database) -> None:
    def row() -> DecisionRow:
        return DecisionRow(
            decision_id="d", trace_id="t", time=NOON, endpoint="/", caller="c", release_id="r", model_version="1",
            degraded=False, record={"query": "a private question"},
        )  # fmt: skip

    with database.session() as session:
        session.add(row())
    with pytest.raises(IntegrityError) as caught, database.session() as session:
        session.add(row())
    assert "private" not in str(caught.value)


SECRET = "s3cr3t-passw0rd"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/records",
        f"postgres://user:{SECRET}@127.0.0.1:1/records",
        f"postgresql://127.0.0.1:1/records?user=user&password={SECRET}",
        f"postgresql://user:x@127.0.0.1:1/records?sslpassword={SECRET}",
    ],
)
def test_a_server_that_is_away_is_named_without_its_password(url: str) -> None:
    away = Database(url)
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1") as in_migrate:
        away.migrate()
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1") as in_session, away.session():
        pass
    away.close()
    shown = [
        repr(away),
        away.name,
        *("".join(traceback.format_exception(caught.value)) for caught in (in_migrate, in_session)),
    ]
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}:{SECRET}@host:{SECRET}/records",
        f"postgresql://user:abc@{SECRET}@host/records",
        f"postgresql://{SECRET}:abc/def@host:port/records",
        f"mysql://user:{SECRET}@host/records",
        f"no url {SECRET}",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_a_url_of_another_kind_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"storage\.database_url") as caught:
        Database(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@given(password=st.text(min_size=4).filter(lambda text: text not in "postgresql+psycopg://user:***@host:5432/records"))
def test_no_password_shows(password: str) -> None:
    try:
        encoded = quote(password, safe="")
    except UnicodeEncodeError:
        return
    assert password not in repr(Database(f"postgresql://user:{encoded}@host:5432/records"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DatabaseError, match="permissions"):
        Database(f"sqlite:///{tmp_path / 'records.db'}").migrate()
