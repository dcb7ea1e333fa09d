"""What callers say of an answer or of its passages: one value for each kind of a decision and passage, the last one."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from models.contracts.messages import Feedback
from models.records.database import Database
from models.records.tables import FeedbackRow

ANSWER = ""
"""In place of a passage: the answer itself."""


def put(database: Database, feedback: Feedback, caller: str) -> None:
    """Store it; the same again changes nothing, and another value takes the place of the one before.

    The decision must be stored: the database raises `IntegrityError` for one that is not.
    """
    values = {
        "decision_id": feedback.decision_id,
        "passage_id": feedback.passage_id or ANSWER,
        "kind": feedback.kind,
        "value": feedback.value,
        "caller": caller,
        "time": datetime.now(UTC),
    }
    insert = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[database.dialect]
    statement = insert(FeedbackRow).values(values)
    changed = {name: values[name] for name in ("value", "caller", "time")}
    with database.session() as session:
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["decision_id", "passage_id", "kind"],
                set_=changed,
                where=FeedbackRow.value != statement.excluded.value,
            )
        )


def of_decision(database: Database, decision_id: str) -> list[Feedback]:
    """What was said of one decision, by passage and kind."""
    wanted = (
        select(FeedbackRow)
        .where(FeedbackRow.decision_id == decision_id)
        .order_by(FeedbackRow.passage_id, FeedbackRow.kind)
    )
    with database.session(read_only=True) as session:
        return [
            Feedback.model_validate(
                {
                    "decision_id": row.decision_id,
                    "passage_id": None if row.passage_id == ANSWER else row.passage_id,
                    "kind": row.kind,
                    "value": row.value,
                }
            )
            for row in session.scalars(wanted)
        ]
