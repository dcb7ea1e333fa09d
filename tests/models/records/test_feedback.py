"""Feedback on both databases: the last value of a kind, gone with its decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from models.contracts.messages import Decision, Feedback
from models.records.database import Database
from models.records.decisions import decision_row, delete_decisions, insert_decisions
from models.records.feedback import of_decision, put
from models.records.tables import FeedbackRow

NAME = "d" * 32


@pytest.fixture
def decided(database: Database) -> Database:
    """A database with one decision of ten days ago."""
    decision = Decision(
        decision_id=NAME,
        trace_id="t",
        time=datetime.now(UTC) - timedelta(days=10),
        endpoint="/v1/answer",
        caller="c",
        query="how",
        candidates=[],
        ranking=[],
        release_id="r",
        model_version="1",
        index_version="i",
        corpus_version="c",
        stage_ms={},
    )
    insert_decisions(database, [decision_row(decision)])
    return database


def test_the_last_value_counts_and_the_same_again_changes_nothing(decided: Database) -> None:
    thumb = Feedback(decision_id=NAME, kind="thumb", value=1)
    click = Feedback(decision_id=NAME, passage_id="p", kind="click", value=1)
    for one in (thumb, click, thumb):
        put(decided, one, "ann")
    put(decided, thumb, "bob")
    with decided.session(read_only=True) as session:
        assert set(session.scalars(select(FeedbackRow.caller))) == {"ann"}, "the same again changes nothing"
    assert of_decision(decided, NAME) == [thumb, click]
    put(decided, thumb.model_copy(update={"value": -1.0}), "bob")
    assert [one.value for one in of_decision(decided, NAME)] == [-1.0, 1.0]


def test_a_decision_that_is_not_stored_has_none(decided: Database) -> None:
    with pytest.raises(IntegrityError):
        put(decided, Feedback(decision_id="e" * 32, kind="thumb", value=1), "ann")


@pytest.mark.parametrize("change", [{"kind": "stars"}, {"value": 2.0}])
def test_the_database_refuses_what_is_out_of_bounds(decided: Database, change: dict[str, object]) -> None:
    said = Feedback(decision_id=NAME, kind="thumb", value=1).model_copy(update=change)
    with pytest.raises(IntegrityError):
        put(decided, said, "ann")


def test_it_goes_with_its_decision(decided: Database) -> None:
    put(decided, Feedback(decision_id=NAME, kind="thumb", value=1), "ann")
    assert delete_decisions(decided, days=3) == 1
    assert of_decision(decided, NAME) == []
