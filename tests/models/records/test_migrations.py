"""A ledger in use whose model versions move from a column per tier into one by tier, and back."""

from __future__ import annotations

from collections.abc import Callable

import alembic.command
import pytest
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError

from models.records.database import Database
from models.records.ledger import Ledger
from models.settings import ROOT

_AT = "2026-11-01 12:00:00+00:00"
_RELEASES = (
    ("r-1", "release", "active", "b1", "large-1", "compact-1", None, None, _AT),
    ("r-2", "release", "active", "b2", "large-2", "compact-1", "r-1", None, _AT),
    ("r-3", "rollback", "active", "b1", "large-1", "compact-1", None, "r-1", _AT),
    ("r-4", "release", "pending", "b3", "large-3", "compact-3", "r-3", None, None),
)
_INSERT = text(
    "INSERT INTO releases (release_id, action, state, bundle_version, model_version, index_version, corpus_version, "
    "large_version, compact_version, settings_digest, gate_decision_id, previous_release_id, restores_release_id, "
    "actor, reason, created_at, activated_at) VALUES (:release_id, :action, :state, :bundle_version, '1', 'i', 'c', "
    ":large, :compact, 's', 'g-1', :previous, :restores, 'ana', 'test', :at, :activated)"
)
_NAMES = ("release_id", "action", "state", "bundle_version", "large", "compact", "previous", "restores", "activated")


def on_connection(url: str, do: Callable[[Config, Connection], None]) -> None:
    """Call `do` with Alembic's configuration and a connection, in one transaction."""
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config(ROOT / "models" / "records" / "migrations" / "alembic.ini")
        config.attributes["connection"] = connection
        do(config, connection)
    engine.dispose()


@pytest.fixture
def used_url(database_url: str) -> str:
    """A database of the revision before, with releases of every kind."""

    def fill(config: Config, connection: Connection) -> None:
        alembic.command.upgrade(config, "0003")
        decision = "INSERT INTO gate_decisions VALUES ('g-1', 'b1', NULL, 'released', '{}', :at)"
        connection.execute(text(decision), {"at": _AT})
        for row in _RELEASES:
            connection.execute(_INSERT, {**dict(zip(_NAMES, row, strict=True)), "at": _AT})

    on_connection(database_url, fill)
    return database_url


def test_releases_are_carried_over_and_the_ledger_goes_on(used_url: str) -> None:
    database = Database(used_url)
    database.migrate()
    ledger = Ledger(database)
    assert {release.release_id: release.model_versions for release in ledger.history()} == {
        "r-1": {"large": "large-1", "compact": "compact-1"},
        "r-2": {"large": "large-2", "compact": "compact-1"},
        "r-3": {"large": "large-1", "compact": "compact-1"},
        "r-4": {"large": "large-3", "compact": "compact-3"},
    }
    assert [(release.sequence, release.release_id) for release in ledger.history()] == [
        (n, f"r-{n}") for n in (4, 3, 2, 1)
    ]
    changes = ("model_versions = '{}', state = 'abandoned'", "actor = 'bob', state = 'abandoned'", "state = 'released'")
    for change in changes:
        with pytest.raises(IntegrityError, match="append-only"), database.session() as session:
            session.execute(text(f"UPDATE releases SET {change} WHERE release_id = 'r-4'"))
    with pytest.raises(IntegrityError, match="append-only"), database.session() as session:
        session.execute(text("DELETE FROM releases"))
    assert ledger.activate("r-4").previous_release_id == "r-3"
    assert ledger.begin_rollback(actor="ana", reason="test").model_versions == {
        "large": "large-1",
        "compact": "compact-1",
    }
    database.close()


def test_the_columns_come_back_with_the_revision_before(used_url: str) -> None:
    database = Database(used_url)
    database.migrate()
    database.close()
    on_connection(used_url, lambda config, _: alembic.command.downgrade(config, "0003"))

    def compare(_: Config, connection: Connection) -> None:
        columns = "release_id, action, state, bundle_version, large_version, compact_version, previous_release_id"
        rows = connection.execute(text(f"SELECT {columns} FROM releases ORDER BY sequence")).all()
        assert [tuple(row) for row in rows] == [row[:7] for row in _RELEASES]

    on_connection(used_url, compare)
    database.migrate()
    assert len(Ledger(database).history()) == len(_RELEASES)
    database.close()
