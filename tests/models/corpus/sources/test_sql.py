from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources import open_source
from models.corpus.sources.sql import SqlSource
from models.errors import SettingsError, SourceError
from models.settings import CorpusSettings, SqlSettings, load_settings

SETTINGS = SqlSettings(
    documents="SELECT id AS document_id, body AS text, title, 'shop' AS source, labels AS access, "
    "changed AS updated_at FROM article ORDER BY id",
    queries="SELECT id AS query_id, question AS text FROM question",
    judgments="SELECT question AS query_id, article AS document_id, grade FROM clicks WHERE shop <> ':none'",
)


def _fill(url: str, articles: int = 3) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE article (id INTEGER, body TEXT, title TEXT, labels TEXT, changed TEXT)"))
        connection.execute(text("CREATE TABLE question (id INTEGER, question TEXT)"))
        connection.execute(text("CREATE TABLE clicks (question INTEGER, article INTEGER, grade NUMERIC, shop TEXT)"))
        rows = [
            {"id": n, "body": f"Body {n} 🙂", "title": None, "labels": "staff" if n else None, "changed": "2024-05-01"}
            for n in range(articles)
        ]
        connection.execute(text("INSERT INTO article VALUES (:id, :body, :title, :labels, :changed)"), rows)
        connection.execute(text("INSERT INTO question VALUES (1, 'Which?')"))
        connection.execute(text("INSERT INTO clicks VALUES (1, 2, 1, 'x')"))
    engine.dispose()


def _run(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _source(url: str, **changes: str | int) -> SqlSource:
    return SqlSource(SETTINGS.model_copy(update={"url": url, **changes}), Path("/"))


def test_rows_are_read_under_our_names(database_url: str) -> None:
    _fill(database_url)
    source = _source(database_url)
    assert list(source.documents()) == [
        Document(str(n), "", f"Body {n} 🙂", "shop", ("staff",) if n else (), "2024-05-01T00:00:00+00:00")
        for n in range(3)
    ]
    assert list(source.queries()) == [Query("1", "Which?")]
    assert list(source.judgments()) == [Judgment("1", "2", 1)]
    assert list(source.documents()) == list(source.documents())


def test_more_rows_than_a_batch_are_all_read(database_url: str) -> None:
    _fill(database_url, articles=25)
    assert len(list(_source(database_url, batch_rows=10).documents())) == 25


def test_queries_and_judgments_may_be_absent(database_url: str) -> None:
    _fill(database_url)
    source = _source(database_url, queries="", judgments=" ")
    assert not list(source.queries())
    assert not list(source.judgments())
    assert len(source.fingerprint()) == 64


def test_bad_rows_are_rejected_with_their_number(database_url: str) -> None:
    _fill(database_url)
    _run(
        database_url,
        "INSERT INTO article VALUES (NULL, 'x', '', '', ''), (8, ' ', '', '[1]', 'soon'), (9, 'x', '', '', '')",
    )
    rows = [row for row in _source(database_url).documents() if isinstance(row, RejectedRow)]
    assert {row.reason for row in rows} == {
        "document_id: missing",
        "text: missing; access: neither a list of labels nor comma-separated text; updated_at: not an ISO 8601 time",
    }
    assert all(row.position.startswith("documents row ") for row in rows)
    assert len(list(_source(database_url).documents())) == 6


def test_nothing_can_be_written(database_url: str) -> None:
    _fill(database_url)
    for statement in ("DELETE FROM article", "-- SELECT\nDROP TABLE article", ""):
        with pytest.raises(SourceError, match=r"corpus\.sql\.documents is"):
            _source(database_url, documents=statement)
    hidden = [
        "WITH gone AS (DELETE FROM article RETURNING id, body) SELECT id AS document_id, body AS text FROM gone",
        "SELECT id AS document_id, body AS text FROM article; DELETE FROM article",
    ]
    for statement in hidden:
        with pytest.raises(SourceError, match=r"corpus\.sql\.documents: "):
            list(_source(database_url, documents=statement).documents())
    assert len(list(_source(database_url).documents())) == 3


def test_fingerprint_of_the_content_follows_it_in_any_order(database_url: str) -> None:
    _fill(database_url)
    first = _source(database_url).fingerprint()
    assert _source(database_url).fingerprint() == first
    upwards, downwards = SETTINGS.documents, SETTINGS.documents + " DESC"
    contents = [_source(database_url, documents=statement)._digest("documents") for statement in (upwards, downwards)]
    assert contents[0] == contents[1]
    assert _source(database_url, documents=downwards).fingerprint() != first
    _run(database_url, "UPDATE article SET body = 'changed' WHERE id = 1")
    assert _source(database_url).fingerprint() != first


def test_fingerprint_can_be_a_cheap_statement(database_url: str) -> None:
    _fill(database_url)
    cheap = "SELECT max(changed), count(*) FROM article"
    first = _source(database_url, fingerprint=cheap, documents="SELECT 1 AS nothing").fingerprint()
    _run(database_url, "UPDATE article SET body = 'changed' WHERE id = 1")
    assert _source(database_url, fingerprint=cheap, documents="SELECT 1 AS nothing").fingerprint() == first
    _run(database_url, "UPDATE article SET changed = '2024-06-01' WHERE id = 1")
    assert _source(database_url, fingerprint=cheap, documents="SELECT 1 AS nothing").fingerprint() != first


def test_missing_columns_and_wrong_statements_are_named(database_url: str) -> None:
    _fill(database_url)
    with pytest.raises(
        SourceError, match=r"corpus\.sql\.documents has no column 'text'; it has: document_id, body"
    ) as error:
        list(_source(database_url, documents="SELECT id AS document_id, body FROM article").documents())
    assert "with AS" in error.value.hint
    with pytest.raises(SourceError, match=r"corpus\.sql\.queries: .*nowhere"):
        list(_source(database_url, queries="SELECT * FROM nowhere").queries())
    with pytest.raises(SourceError, match=r"more than one column 'text'"):
        list(_source(database_url, documents="SELECT 1 AS document_id, 'a' AS text, 'b' AS text").documents())


def test_colons_and_percent_signs_mean_themselves(database_url: str) -> None:
    _fill(database_url)
    statement = "SELECT CAST(':id' AS TEXT) AS document_id, ' 12:30 %s :x' AS text FROM article WHERE body LIKE 'Body%'"
    assert [
        row.text for row in _source(database_url, documents=statement).documents() if isinstance(row, Document)
    ] == [" 12:30 %s :x"] * 3


def test_native_types_of_postgresql_are_understood(postgresql_server: str) -> None:
    statement = (
        "SELECT 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid AS document_id, 'x' AS text, ARRAY['a','b'] AS access, "
        "TIMESTAMPTZ '2024-05-01 10:00:00+00' AS updated_at, 7::numeric AS title "
        "UNION ALL SELECT NULL, 'x', NULL, 'infinity'::timestamptz, NULL"
    )
    url = postgresql_server.replace("postgresql://", "postgresql+psycopg://")
    source = _source(url, documents="SELECT * FROM (" + statement + ") AS rows WHERE document_id IS NOT NULL")
    assert list(source.documents()) == [
        Document("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "7", "x", "postgres", ("a", "b"), "2024-05-01T10:00:00+00:00")
    ]
    with pytest.raises(SourceError, match=r"corpus\.sql\.documents: timestamp too large"):
        list(_source(url, documents=statement).documents())


def test_a_server_that_goes_away_is_a_source_error(postgresql_server: str) -> None:
    url = postgresql_server.replace("postgresql://", "postgresql+psycopg://")
    columns = "n AS document_id, repeat('x', 1000) AS text, pg_backend_pid() AS source"
    statement = f"SELECT {columns} FROM generate_series(1, 50000) n"
    rows = _source(url, documents=statement).documents()
    first = next(rows)
    assert isinstance(first, Document)
    _run(url, f"SELECT pg_terminate_backend({first.source})")
    with pytest.raises(SourceError, match=r"corpus\.sql\.documents: "):
        list(rows)


def test_sqlite_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    _fill(url)
    _run(url, "INSERT INTO article VALUES (7, CAST(X'636166E9' AS TEXT), '', '', ''), (8, X'00FF', '', '', '')")
    *_, bad_text, blob = _source(url).documents()
    assert isinstance(bad_text, Document)
    assert bad_text.text == "caf\udce9"  # which the reading of any corpus refuses
    assert isinstance(blob, RejectedRow)
    assert blob.reason == "text: not text"


def test_sqlite_files_are_found_from_the_folder_and_never_made(tmp_path: Path) -> None:
    _fill(f"sqlite:///{tmp_path / 'my shop#1%.db'}")
    relative = SETTINGS.model_copy(update={"url": "sqlite:///my shop#1%.db"})
    assert len(list(SqlSource(relative, tmp_path).documents())) == 3
    for url in ("sqlite:///missing.db", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(SourceError, match=r"corpus\.sql\.url: no file at"):
            SqlSource(SETTINGS.model_copy(update={"url": url}), tmp_path)
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "junk.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(SourceError, match=r"corpus\.sql\.documents: "):
        list(SqlSource(SETTINGS.model_copy(update={"url": "sqlite:///junk.db"}), tmp_path).documents())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "is no SQLAlchemy URL"),
        ("not a url", "is no SQLAlchemy URL"),
        ("klingon://host/db", "Can't load plugin"),
        ("mysql+pymysql://host/db", "No module named 'pymysql'"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/db", "refused"),
    ],
)
def test_urls_that_lead_nowhere_are_source_errors(url: str, reason: str) -> None:
    with pytest.raises(SourceError, match=rf"corpus\.sql\.url: .*{reason}"):
        list(_source(url).documents())


def test_the_password_is_used_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, postgresql_server: str
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SHOP_PASSWORD", "refused")  # a word of the driver's own message
    source = _source("postgresql+psycopg://nobody@127.0.0.1:1/db", password_env="SHOP_PASSWORD")
    assert source._url.password == "refused"
    with pytest.raises(SourceError) as error:
        list(source.documents())
    shown = "".join(traceback.format_exception(error.value)) + caplog.text + repr(source.settings)
    assert "nobody:***@127.0.0.1" in shown
    assert "refused" not in shown.replace('"refused"', "").replace("'refused'", "")
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    url = postgresql_server.replace("postgresql://", "postgresql+psycopg://")
    fingerprint = _source(url, documents="SELECT 1 AS document_id, 'x' AS text", queries="", judgments="")
    assert len(fingerprint.fingerprint()) == 64
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["postgresql://reader:hunter2@host/db", "postgresql://host/db?password=hunter2", "mysql://h/d?a=1&PWD=hunter2"],
)
def test_a_password_in_the_settings_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"corpus\.sql\.url: .*holds a password") as error:
        load_settings([f"corpus.sql.url={url}"])
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


def test_the_settings_open_it(tmp_path: Path, new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    _fill(url)
    settings = CorpusSettings(source="sql", sql=SETTINGS.model_copy(update={"url": url}))
    assert len(list(open_source(settings, tmp_path).documents())) == 3
