"""Logged candidates as lists for distillation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from models.contracts.messages import PROBE_CALLER
from models.corpus.passage_table import PassageTable
from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.store.tables import write_table
from models.training.logged_decisions import read_logged
from models.training.logged_lists import LoggedList, logged_digest, logged_table
from tests.traffic import decision

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    database.migrate()
    yield database
    database.close()


def store(database: Database, folder: Path, *rows: tuple[str, int, str], caller: str = "key-1") -> None:
    """Decisions (id, hours before noon, query)."""
    with DecisionWriter(database, folder / "spool") as writer:
        for name, hours, query in rows:
            writer.put(decision(name, NOON - timedelta(hours=hours), query=query, caller=caller))
        assert writer.flush()


def test_the_queries_asked_last_are_taken_each_with_its_last_decision(database: Database, tmp_path: Path) -> None:
    store(database, tmp_path, ("d1", 9, "merge tables"), ("d2", 8, "sort rows"), ("d3", 7, "Merge  tables?"))
    store(database, tmp_path, ("d4", 6, "join"), ("d5", 0, "too late"), ("d6", 24 * 91, "too old"))
    store(database, tmp_path, ("d7", 5, "asked by a probe"), caller=PROBE_CALLER)
    result = read_logged(database, 10, NOON)
    assert [(item.decision_id, item.query) for item in result] == [
        ("d2", "sort rows"), ("d3", "Merge  tables?"), ("d4", "join")
    ]  # fmt: skip
    assert result[0].passage_ids == ("a", "b")
    assert [item.decision_id for item in read_logged(database, 2, NOON)] == ["d3", "d4"]
    assert logged_digest(result) != logged_digest(result[1:])


def test_lists_have_the_texts_of_passages_that_the_corpus_still_has(tmp_path: Path) -> None:
    table = pd.DataFrame({"passage_id": ["a", "b", "c"], "title": ["T", "", ""], "text": ["x", "y", "z"]})
    write_table(table, tmp_path / "passages.parquet")
    lists = [
        LoggedList("d1", "join", ("c", "gone", "a", "b")),
        LoggedList("d2", "sort", ("gone", "a")),
        LoggedList("d3", "merge", ("b", "a")),
    ]
    result = logged_table(lists, PassageTable(tmp_path / "passages.parquet"), 2)
    assert list(result.itertuples(index=False, name=None)) == [
        ("d1", "join", "c", "z"),
        ("d1", "join", "a", "T\nx"),
        ("d3", "merge", "b", "y"),
        ("d3", "merge", "a", "T\nx"),
    ]
    assert logged_table([], PassageTable(tmp_path / "passages.parquet"), 2).empty
