"""The decision log: one record per answered request, written behind the request and lost by neither crash nor outage.

A service puts decisions into a `DecisionWriter`; while the database is away they wait in a spool file beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from pydantic_core import PydanticSerializationError
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from models.contracts.messages import Decision
from models.records.database import Database
from models.records.tables import DecisionRow

_PAGE = 500
_LONGEST_KEY = 512
_CONTENT_STATES = ("22", "23", "54")  # SQLSTATE classes of PostgreSQL: data exception, constraint, limit exceeded.


def read(database: Database, start: datetime, end: datetime, exclude_callers: Sequence[str] = ()) -> Iterator[Decision]:
    """Decisions with start <= time < end in time order, streamed from one snapshot. Both times carry an offset."""
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("start and end need an offset, as in datetime(2026, 1, 1, tzinfo=UTC)")
    wanted = select(DecisionRow.record).where(*_between(start, end, exclude_callers))
    ordered = wanted.order_by(DecisionRow.time, DecisionRow.decision_id).execution_options(yield_per=_PAGE)
    with database.session(read_only=True) as session:
        for stored in session.scalars(ordered):
            yield Decision.model_validate(stored)


def count(database: Database, start: datetime, end: datetime, exclude_callers: Sequence[str] = ()) -> int:
    """How many decisions `read` would give."""
    with database.session(read_only=True) as session:
        counted = select(func.count()).select_from(DecisionRow).where(*_between(start, end, exclude_callers))
        return int(session.scalar(counted) or 0)


def _between(start: datetime, end: datetime, exclude_callers: Sequence[str]) -> list[ColumnElement[bool]]:
    others = [DecisionRow.caller.not_in(exclude_callers)] if exclude_callers else []
    return [DecisionRow.time >= start, DecisionRow.time < end, *others]


def get(database: Database, decision_id: str) -> Decision | None:
    """A decision by its id."""
    with database.session(read_only=True) as session:
        stored = session.scalars(select(DecisionRow.record).where(DecisionRow.decision_id == decision_id)).one_or_none()
        return None if stored is None else Decision.model_validate(stored)


def decision_row(decision: Decision) -> dict[str, Any]:
    """The values of a decision for the columns of its table. Raises `ValueError` for an id that cannot be stored."""
    time_of = decision.time
    return {
        "decision_id": _checked_id(decision.decision_id),
        "trace_id": _storable(decision.trace_id),
        "time": time_of.replace(tzinfo=UTC) if time_of.tzinfo is None else time_of,
        "endpoint": _storable(decision.endpoint),
        "caller": _storable(decision.caller),
        "release_id": _storable(decision.release_id),
        "model_version": _storable(decision.model_version),
        "degraded": decision.degraded,
        "record": decision.model_dump(mode="json"),
    }


def _checked_id(decision_id: str) -> str:
    if "\x00" in decision_id or len(decision_id) > _LONGEST_KEY:
        raise ValueError(f"a decision id has no NUL and at most {_LONGEST_KEY} characters")
    return decision_id


def _storable(value: str) -> str:
    """PostgreSQL has no NUL in text and a limit on indexed values; the record itself keeps both."""
    return value.replace("\x00", "\ufffd")[:_LONGEST_KEY]


def insert_decisions(database: Database, rows: list[dict[str, Any]]) -> int:
    """Insert the rows that are not there yet; returns how many those were."""
    insert = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[database.dialect]
    statement = insert(DecisionRow).on_conflict_do_nothing(index_elements=["decision_id"])
    with database.session() as session:
        return len(session.scalars(statement.returning(DecisionRow.decision_id), rows).all())


def delete_decisions(database: Database, days: int, most: int = _PAGE) -> int:
    """Delete the oldest decisions of UTC days that ended more than `days` days ago, at most `most` in one transaction;
    returns how many those were. A day goes as a whole: a part of it would make another log."""
    before = datetime.combine(datetime.now(UTC).date(), time(), UTC) - timedelta(days=days)
    oldest = select(DecisionRow.decision_id).where(DecisionRow.time < before).order_by(DecisionRow.time).limit(most)
    with database.session() as session:
        deleted = delete(DecisionRow).where(DecisionRow.decision_id.in_(oldest)).returning(DecisionRow.decision_id)
        return len(session.scalars(deleted).all())


def is_about_content(error: Exception) -> bool:
    """Whether trying again can never help: the values themselves are refused."""
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        return isinstance(error, DataError | IntegrityError) or state.startswith(_CONTENT_STATES)
    return isinstance(error, StatementError | PydanticSerializationError | ValueError)
