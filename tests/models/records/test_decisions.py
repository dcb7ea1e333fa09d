from __future__ import annotations

import fcntl
import json
import math
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import IntegrityError

from models.contracts.messages import Citation, Decision
from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.records.decisions import decision_row, get, insert_decisions, read
from models.records.tables import DecisionRow
from tests.databases import RunPython
from tests.patience import PATIENCE_S, until

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from models.contracts.messages import Decision
from models.records.database import Database
from models.records.decision_writer import DecisionWriter
writer = DecisionWriter(Database(sys.argv[1]), Path(sys.argv[2]), flush_s=0.01)
for line in sys.stdin:
    writer.put(Decision.model_validate_json(line))
assert writer.flush(30)
print(writer.written, writer.spooled, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

PUT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from models.contracts.messages import Decision
from models.records.database import Database
from models.records.decision_writer import DecisionWriter
writer = DecisionWriter(Database(sys.argv[1]), Path(sys.argv[2]))
for line in sys.stdin:
    decision = Decision.model_validate_json(line)
    assert writer.put(decision).result(30)
    print(decision.decision_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def decision(decision_id: str, time: datetime = NOON, **fields: Any) -> Decision:
    values = {
        "trace_id": f"trace-{decision_id}",
        "endpoint": "/v1/rerank",
        "caller": "key-1",
        "query": "how are rows joined?",
        "candidates": [{"passage_id": "p1", "rank": 1, "dense_score": 0.1 + 0.2}],
        "ranking": [{"passage_id": "p1", "rank": 1, "score": 1 / 3, "tier": "large"}],
        "release_id": "r-1",
        "model_version": "3",
        "index_version": "i1",
        "corpus_version": "c1",
        "stage_ms": {"large": 12.5},
    }
    return Decision(decision_id=decision_id, time=time, **(values | fields))


def record(database: Database, decision: Decision) -> None:
    insert_decisions(database, [decision_row(decision)])


def stored_ids(database: Database) -> list[str]:
    return [result.decision_id for result in read(database, NOON - DAY, NOON + DAY)]


@contextmanager
def outage(database_url: str) -> Iterator[None]:
    """A database that refuses every insert, while the block runs."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO decisions_away"))
    yield
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions_away RENAME TO decisions"))
    engine.dispose()


def test_a_decision_comes_back_as_it_was(database: Database) -> None:
    citation = Citation(passage_id="p1", document_id="d1", title="t", quote="q", start=0, end=1)
    whole = decision("d-1", degraded=True, degraded_reason="deadline", answer="Joined.", citations=[citation])
    record(database, whole)
    assert get(database, "d-1") == whole
    assert get(database, "d-none") is None
    with database.session(read_only=True) as session:
        row = session.get_one(DecisionRow, "d-1")
        assert (row.trace_id, row.endpoint, row.caller, row.release_id) == ("trace-d-1", "/v1/rerank", "key-1", "r-1")
        assert (row.model_version, row.degraded, row.time) == ("3", True, NOON)
        assert row.record["query"] == "how are rows joined?"


def test_recording_twice_keeps_the_first(database: Database) -> None:
    record(database, decision("d-1", query="first"))
    record(database, decision("d-1", query="second"))
    (kept,) = read(database, NOON, NOON + DAY)
    assert kept.query == "first"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(st.characters(exclude_categories=["Cs"])),
    trace_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    score=st.floats(allow_nan=False, allow_infinity=False),
    time=st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=OFFSETS),  # noqa: DTZ001
)
def test_any_text_and_number_survives(
    database: Database, query: str, trace_id: str, score: float, time: datetime
) -> None:
    with database.session() as session:
        session.execute(text("DELETE FROM decisions"))
    whole = decision("d-1", query=query, trace_id=trace_id, time=time, candidates=[{"score": score, query: query}])
    record(database, whole)
    assert get(database, "d-1") == whole


def test_reading_is_in_time_order_within_the_window_and_without_callers(database: Database) -> None:
    for number, minutes in enumerate([5, 0, 60, -1, 59]):
        record(database, decision(f"d-{number}", NOON + timedelta(minutes=minutes)))
    record(database, decision("d-golden", NOON, caller="golden"))
    window = (NOON, NOON + timedelta(hours=1))
    assert [result.decision_id for result in read(database, *window)] == ["d-1", "d-golden", "d-0", "d-4"]
    assert [result.decision_id for result in read(database, *window, exclude_callers=["golden"])] == [
        "d-1",
        "d-0",
        "d-4",
    ]
    assert list(read(database, NOON + DAY, NOON + 2 * DAY)) == []


def test_reading_refuses_times_without_an_offset(database: Database) -> None:
    with pytest.raises(ValueError, match="offset"):
        next(read(database, NOON.replace(tzinfo=None), NOON))


def test_reading_streams_one_snapshot_beside_a_writer(database: Database, tmp_path: Path) -> None:
    with DecisionWriter(database, tmp_path / "spool.jsonl") as writer:
        for number in range(1200):
            writer.put(decision(f"d-{number:04}", NOON + timedelta(seconds=number)))
    stream = read(database, NOON, NOON + DAY)
    first = next(stream)
    record(database, decision("d-late", NOON + timedelta(seconds=1199, milliseconds=1)))
    assert [first.decision_id, *(result.decision_id for result in stream)] == [
        f"d-{number:04}" for number in range(1200)
    ]


def test_a_naive_time_is_taken_as_utc(database: Database) -> None:
    record(database, decision("d-1", NOON.replace(tzinfo=None)))
    assert stored_ids(database) == ["d-1"]


def test_ids_and_keys_of_any_length_are_stored_or_refused(database: Database) -> None:
    record(database, decision("d-1", trace_id="é" * 5000))
    response = get(database, "d-1")
    assert response is not None
    assert response.trace_id == "é" * 5000
    for wrong in ("d" * 513, "d\x00"):
        with pytest.raises(ValueError, match="decision id"):
            record(database, decision(wrong))


def test_the_writer_stores_everything_by_the_time_it_is_closed(database: Database, tmp_path: Path) -> None:
    writer = DecisionWriter(database, tmp_path / "spool.jsonl", batch=64)
    threads = [
        threading.Thread(target=lambda part=part: [writer.put(decision(f"d-{part}-{n}")) for n in range(100)])
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert (writer.written, writer.spooled, writer.pending, writer.rejected, writer.lost) == (400, 0, 0, 0, 0)
    assert len(stored_ids(database)) == 400
    assert list(tmp_path.glob("spool*")) == []


def test_the_writer_flushes_without_being_closed(database: Database, tmp_path: Path) -> None:
    writer = DecisionWriter(database, tmp_path / "spool.jsonl")
    writer.put(decision("d-1"))
    assert writer.flush()
    assert stored_ids(database) == ["d-1"]
    assert (writer.written, writer.pending) == (1, 0)
    writer.close()


def test_an_outage_is_bridged_by_the_spool(database: Database, database_url: str, tmp_path: Path) -> None:
    writer = DecisionWriter(database, tmp_path / "spool.jsonl", flush_s=0.01, retry_s=(0.01, 0.02))
    with outage(database_url):
        for number in range(5):
            writer.put(decision(f"d-{number}", NOON + timedelta(seconds=number)))
        assert writer.flush()
        assert (writer.written, writer.spooled, writer.pending) == (0, 5, 0)
    until(lambda: writer.spooled == 0)
    writer.put(decision("d-5", NOON + timedelta(seconds=5)))
    writer.close()
    assert (writer.written, writer.spooled, writer.pending, writer.lost) == (6, 0, 0, 0)
    assert stored_ids(database) == [f"d-{number}" for number in range(6)]
    assert list(tmp_path.glob("spool*")) == []


def test_a_spool_is_replayed_at_the_next_start(database: Database, tmp_path: Path) -> None:
    away = Database("postgresql://user@127.0.0.1:1/records")
    spool = tmp_path / "deep" / "spool.jsonl"
    with DecisionWriter(away, spool) as writer:
        writer.put(decision("d-1"))
        writer.put(decision("d-2"))
    away.close()
    assert (writer.written, writer.spooled, writer.pending) == (0, 2, 0)

    with DecisionWriter(database, spool) as writer:
        until(lambda: writer.spooled == 0)
        assert (writer.written, writer.spooled) == (2, 0)
    assert stored_ids(database) == ["d-1", "d-2"]


def test_a_replay_that_was_cut_short_stores_nothing_twice(database: Database, tmp_path: Path) -> None:
    left = tmp_path / "spool.jsonl.1-abc.replay"
    left.write_text("".join(decision(f"d-{number}").model_dump_json() + "\n" for number in range(3)))
    record(database, decision("d-0"))
    with DecisionWriter(database, tmp_path / "spool.jsonl") as writer:
        assert writer.spooled == 3
        until(lambda: writer.spooled == 0)
        assert writer.written == 2
    assert sorted(stored_ids(database)) == ["d-0", "d-1", "d-2"]
    assert not left.exists()


def test_a_torn_line_costs_no_other_and_is_kept_and_not_logged(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "spool.jsonl"
    torn = decision("d-torn").model_dump_json()[:50]
    spool.write_text(decision("d-1").model_dump_json() + "\n" + torn)
    away = Database("postgresql://user@127.0.0.1:1/records")
    with DecisionWriter(away, spool) as writer:
        writer.put(decision("d-2"))
    away.close()
    with DecisionWriter(database, spool) as writer:
        until(lambda: writer.spooled == 0)
        assert writer.rejected == 1
    assert stored_ids(database) == ["d-1", "d-2"]
    assert (tmp_path / "spool.jsonl.rejected").read_text() == torn + "\n"
    assert "line 2 is no decision: json_invalid" in caplog.text
    assert "d-torn" not in caplog.text


def test_a_decision_that_no_database_takes_stops_no_other(database: Database, tmp_path: Path) -> None:
    with DecisionWriter(database, tmp_path / "spool.jsonl") as writer:
        writer.put(decision("d-1"))
        writer.put(decision("d-nan", stage_ms={"large": math.nan}))
        writer.put(decision("d-object", candidates=[{"score": object()}]))
        writer.put(decision("d" * 600))
        writer.put(decision("d-2"))
    assert (writer.written, writer.rejected, writer.spooled, writer.pending) == (2, 3, 0, 0)
    assert stored_ids(database) == ["d-1", "d-2"]
    kept = [json.loads(line)["decision_id"] for line in (tmp_path / "spool.jsonl.rejected").read_text().splitlines()]
    assert sorted(kept) == ["d-nan", "d-object", "d" * 600]


def test_a_decision_is_on_disk_when_put_says_so_though_the_database_is_locked(
    tmp_path: Path, run_python: RunPython
) -> None:
    """What a client holds the id of survives a kill -9 (5 of 153 did not)."""
    file = tmp_path / "records.db"
    records = Database(f"sqlite:///{file}")
    records.migrate()
    spool = tmp_path / "spool.jsonl"
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    process = run_python(PUT_AND_DIE, f"sqlite:///{file}", str(spool))
    lines = "".join(decision(f"d-{number}").model_dump_json() + "\n" for number in range(10))
    printed, errors = process.communicate(lines, timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL, errors
    answered = printed.split()
    assert answered == [f"d-{number}" for number in range(10)]
    blocker.rollback()
    blocker.close()
    with DecisionWriter(records, spool) as writer:
        until(lambda: writer.spooled == 0)
    assert stored_ids(records) == answered
    records.close()


def test_a_full_disk_is_told_and_the_database_takes_over_until_it_has_room(database: Database, tmp_path: Path) -> None:
    spool = tmp_path / "spool.jsonl"
    with DecisionWriter(database, spool) as writer:
        spool.symlink_to("/dev/full")
        assert writer.put(decision("d-1")).result(PATIENCE_S)
        assert (stored_ids(database), writer.failure, writer.lost) == (["d-1"], "", 0)


def test_a_full_disk_is_an_unrecorded_decision_and_no_half_line(tmp_path: Path) -> None:
    """24 of 31 answered decisions were lost, and nothing said so."""
    away = Database("postgresql://user@127.0.0.1:1/records")
    spool = tmp_path / "spool.jsonl"
    with DecisionWriter(away, spool) as writer:
        assert writer.put(decision("d-1")).result(PATIENCE_S)
        before = b"".join(file.read_bytes() for file in tmp_path.glob("spool*"))
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit[1]))
        try:
            assert not writer.put(decision("d-2")).result(PATIENCE_S)
            assert (writer.lost, writer.failure) == (1, "File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert b"".join(file.read_bytes() for file in tmp_path.glob("spool*")) == before
        until(lambda: not writer.failure)
        assert writer.put(decision("d-3")).result(PATIENCE_S)
    away.close()


def test_decisions_past_their_days_are_deleted_and_the_others_stay(database: Database, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for number, days in enumerate([40, 31, 29, 0]):
        record(database, decision(f"d-{number}", now - timedelta(days=days)))
    with DecisionWriter(database, tmp_path / "spool.jsonl", flush_s=0.01, keep_days=30):
        until(lambda: get(database, "d-1") is None)
    assert [get(database, f"d-{number}") is not None for number in range(4)] == [False, False, True, True]
    with DecisionWriter(database, tmp_path / "spool.jsonl", flush_s=0.01) as writer:
        writer.flush()
    assert get(database, "d-2") is not None, "0 keeps all"


def test_a_full_queue_is_told_and_put_does_not_wait(database: Database, tmp_path: Path) -> None:
    spool = tmp_path / "spool.jsonl"
    with DecisionWriter(database, spool, capacity=4, batch=2) as writer:
        with spool.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            recorded = [writer.put(decision(f"d-{number:02}")) for number in range(20)]
            assert sum(future.done() for future in recorded) >= 14
        answered = [future.result(PATIENCE_S) for future in recorded]
        assert writer.lost == answered.count(False)
        writer.flush()
    assert stored_ids(database) == [f"d-{number:02}" for number in range(20) if answered[number]]


def test_a_locked_database_costs_no_decision_and_no_time(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    records = Database(f"sqlite:///{file}")
    records.migrate()
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    writer = DecisionWriter(records, tmp_path / "spool.jsonl", batch=2, flush_s=0.01)
    recorded = [writer.put(decision(f"d-{number:02}")) for number in range(20)]
    assert all(future.result(PATIENCE_S) for future in recorded)
    assert (writer.spooled, writer.lost, writer.pending) == (20, 0, 0)
    blocker.rollback()
    blocker.close()
    until(lambda: writer.spooled == 0)
    writer.close()
    assert stored_ids(records) == [f"d-{number:02}" for number in range(20)]
    records.close()


def test_closing_beside_a_hanging_database_spools_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    records = Database(f"sqlite:///{file}")
    records.migrate()
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    writer = DecisionWriter(records, tmp_path / "spool.jsonl", batch=1, flush_s=0.01)
    recorded = [writer.put(decision(f"d-{number}")) for number in range(3)]
    writer.close(timeout_s=0.05)
    assert all(future.result(PATIENCE_S) for future in [*recorded, writer.put(decision("d-after"))])
    files = [*sorted(tmp_path.glob("spool.jsonl.*.replay")), tmp_path / "spool.jsonl"]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(json.loads(line)["decision_id"] for line in lines) == ["d-0", "d-1", "d-2", "d-after"]
    blocker.rollback()
    blocker.close()
    writer.close()
    with DecisionWriter(records, tmp_path / "spool.jsonl") as again:
        until(lambda: again.spooled == 0)
    assert stored_ids(records) == ["d-0", "d-1", "d-2", "d-after"]
    records.close()


def test_a_disk_that_is_full_beside_a_database_that_is_away_loses_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = Database("postgresql://user@127.0.0.1:1/records")
    spool = tmp_path / "spool.jsonl"
    writer = DecisionWriter(away, spool, flush_s=0.01)
    spool.mkdir()
    writer.put(decision("d-1"))
    writer.close()
    away.close()
    assert writer.lost == 1
    assert "the spool failed" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_a_killed_process_had_spooled_is_not_lost(
    database: Database, tmp_path: Path, run_python: RunPython
) -> None:
    spool = tmp_path / "spool.jsonl"
    process = run_python(WRITE_AND_DIE, "postgresql://user@127.0.0.1:1/records", str(spool))
    lines = "".join(decision(f"d-{number}").model_dump_json() + "\n" for number in range(10))
    printed, errors = process.communicate(lines, timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL, errors
    assert printed == "0 10\n"
    with DecisionWriter(database, spool) as writer:
        until(lambda: writer.spooled == 0)
    assert stored_ids(database) == [f"d-{number}" for number in range(10)]


def test_writers_that_share_a_spool_lose_and_double_nothing(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    spool = tmp_path / "spool.jsonl"
    with outage(database_url):
        writers = [DecisionWriter(database, spool, flush_s=0.005, retry_s=(0.005, 0.01)) for _ in range(3)]
        for number in range(150):
            writers[number % 3].put(decision(f"d-{number:03}"))
    for writer in writers:
        writer.close()
    with DecisionWriter(database, spool) as last:
        until(lambda: last.spooled == 0)
    assert stored_ids(database) == [f"d-{number:03}" for number in range(150)]
    assert sum(writer.written for writer in [*writers, last]) == 150
    assert list(tmp_path.glob("spool*")) == []


def test_the_outage_of_these_tests_is_one(database: Database, database_url: str) -> None:
    record(database, decision("d-1"))
    with outage(database_url), pytest.raises(Exception, match="decisions"):
        record(database, decision("d-2"))
    with database.session(read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(DecisionRow)) == 1
    with pytest.raises(IntegrityError), database.session() as session:
        session.execute(text("INSERT INTO decisions SELECT * FROM decisions"))
