from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from models.errors import RerankOpsError
from models.records.database import Database
from models.records.incidents import Incident, close_incident, open_incident, open_incidents, recent_incidents


def test_an_incident_is_open_until_it_is_closed(database: Database) -> None:
    opened = open_incident(database, "drift", {"share": 0.75, "columns": ["query_length"]})
    assert open_incidents(database) == [opened]
    assert opened.closed is None
    assert opened.evidence == {"share": 0.75, "columns": ["query_length"]}

    closed = close_incident(database, opened.incident_id, actor="ann", note="a holiday")
    assert closed.closed is not None
    assert (opened.closed_by, opened.closed_note) == (None, None)
    assert (closed.closed_by, closed.closed_note) == ("ann", "a holiday")
    assert closed.closed >= opened.opened
    assert open_incidents(database) == []
    assert close_incident(database, opened.incident_id, actor="bob", note="again") == closed
    assert recent_incidents(database) == [closed]


def test_closing_an_unknown_incident_says_so(database: Database) -> None:
    with pytest.raises(RerankOpsError, match="no incident i-none"):
        close_incident(database, "i-none", actor="ann", note="")


def test_an_open_incident_with_the_same_key_is_not_opened_twice(database: Database) -> None:
    first = open_incident(database, "drift", {"p95_ms": 1700}, dedupe_key="drift:monday")
    assert open_incident(database, "drift", {"p95_ms": 1900}, dedupe_key="drift:monday") == first
    other = open_incident(database, "drift", {"p99_ms": 3000}, dedupe_key="drift:tuesday")
    assert open_incidents(database) == [first, other]

    close_incident(database, first.incident_id, actor="ann", note="")
    again = open_incident(database, "drift", {"p95_ms": 1800}, dedupe_key="drift:monday")
    assert again.incident_id != first.incident_id
    assert again.evidence == {"p95_ms": 1800}
    assert open_incidents(database) == [other, again]


def test_incidents_without_a_key_are_all_opened(database: Database) -> None:
    built = [open_incident(database, "fault", {"error": "disk"}) for _ in range(2)]
    assert open_incidents(database) == built


def test_incidents_opened_at_once_with_one_key_are_one(database: Database) -> None:
    def work(number: int) -> Incident:
        return open_incident(database, "gate", {"number": number}, dedupe_key="gate:b1")

    with ThreadPoolExecutor(4) as pool:
        built = {incident.incident_id for incident in pool.map(work, range(8))}
    assert len(built) == 1
    assert [incident.incident_id for incident in open_incidents(database)] == list(built)


def test_open_incidents_are_listed_by_kind(database: Database) -> None:
    drift = open_incident(database, "drift", {})
    rollback = open_incident(database, "rollback", {})
    assert open_incidents(database, "drift") == [drift]
    assert open_incidents(database, "rollback") == [rollback]
    assert open_incidents(database, "fault") == []
    assert recent_incidents(database, limit=1) == [rollback]


def test_an_unknown_kind_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError):
        open_incident(database, "weather", {})  # pyright: ignore[reportArgumentType]
