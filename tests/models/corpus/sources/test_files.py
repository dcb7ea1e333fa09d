from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources import open_source
from models.corpus.sources.files import FilesSource
from models.errors import SourceError
from models.settings import CorpusSettings, FilesSettings

DOCUMENTS = [
    {
        "document_id": "d1",
        "text": 'One, with a comma\nand a "quote".',
        "title": "T",
        "source": "wiki",
        "access": "team, board",
        "updated_at": "2024-05-01T10:00:00+02:00",
    },
    {"document_id": "d2", "text": "Zwei 🙂", "title": "", "source": "", "access": "", "updated_at": ""},
]
QUERIES = [{"query_id": "q1", "text": "Who?", "split": "test", "group": "g"}]
JUDGMENTS = [{"query_id": "q1", "document_id": "d2", "grade": 2}]


def _save(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
        return
    if ".csv" in path.suffixes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _source(
    folder: Path,
    suffix: str,
    documents: list[dict[str, Any]] = DOCUMENTS,
    queries: list[dict[str, Any]] = QUERIES,
    judgments: list[dict[str, Any]] = JUDGMENTS,
    columns: dict[str, str] | None = None,
) -> FilesSource:
    tables = {"documents": documents, "queries": queries, "judgments": judgments}
    for name, rows in tables.items():
        _save(folder / f"{name}.{suffix}", rows)
    names = [f"{name}.{suffix}" for name in tables]
    return FilesSource(
        folder, FilesSettings(documents=names[0], queries=names[1], judgments=names[2], columns=columns or {})
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    source = _source(tmp_path, suffix)
    assert list(source.documents()) == [
        Document("d1", "T", DOCUMENTS[0]["text"], "wiki", ("team", "board"), "2024-05-01T10:00:00+02:00"),
        Document("d2", "", "Zwei 🙂", f"documents.{suffix}"),
    ]
    assert list(source.queries()) == [Query("q1", "Who?", "test", "g")]
    assert list(source.judgments()) == [Judgment("q1", "d2", 2)]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_optional_columns_may_be_absent_and_ids_may_be_numbers(tmp_path: Path, suffix: str) -> None:
    source = _source(
        tmp_path,
        suffix,
        [{"document_id": 7, "text": "x"}],
        [{"query_id": 1, "text": "y?"}],
        [{"query_id": 1, "document_id": 7, "grade": 1}],
    )
    assert list(source.documents()) == [Document("7", "", "x", f"documents.{suffix}")]
    assert list(source.queries()) == [Query("1", "y?")]
    assert list(source.judgments()) == [Judgment("1", "7", 1)]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_columns_are_mapped_for_all_tables_or_for_one(tmp_path: Path, suffix: str) -> None:
    source = _source(
        tmp_path,
        suffix,
        [{"sku": "d", "body": "x", "text": "not this"}],
        [{"query_id": "q", "question": "y?"}],
        [{"query_id": "q", "sku": "d", "grade": 1}],
        {"document_id": "sku", "documents.text": "body", "queries.text": "question"},
    )
    assert list(source.documents()) == [Document("d", "", "x", f"documents.{suffix}")]
    assert list(source.queries()) == [Query("q", "y?")]
    assert list(source.judgments()) == [Judgment("q", "d", 1)]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_missing_column_is_named_with_the_file_and_what_there_is(tmp_path: Path, suffix: str) -> None:
    source = _source(tmp_path, suffix, [{"document_id": "d", "body": "x"}])
    with pytest.raises(
        SourceError, match=rf"documents\.{suffix} has no column 'text'; it has: document_id, body"
    ) as error:
        list(source.documents())
    assert "corpus.files.columns" in error.value.hint


def test_native_parquet_types_are_understood(tmp_path: Path) -> None:
    when = datetime(2024, 5, 1, 10, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {"document_id": "a", "text": "x", "access": ["team"], "updated_at": when},
        {"document_id": "b", "text": "x", "access": [], "updated_at": None},
        {"document_id": "c", "text": "x", "access": None, "updated_at": when.replace(tzinfo=None)},
    ]
    pd.DataFrame(rows[:2]).to_parquet(tmp_path / "documents.parquet")
    source = _source(tmp_path, "parquet", rows[:2])
    result = [row for row in source.documents() if isinstance(row, Document)]
    assert [(row.access, row.updated_at) for row in result] == [(("team",), "2024-05-01T10:00:00+00:00"), ((), None)]
    naive = _source(tmp_path, "parquet", rows[2:])
    assert [row.updated_at for row in naive.documents() if isinstance(row, Document)] == ["2024-05-01T10:00:00+00:00"]
    dated = _source(tmp_path, "parquet", [{"document_id": "a", "text": "x", "updated_at": date(2024, 5, 1)}])
    assert [row.updated_at for row in dated.documents() if isinstance(row, Document)] == ["2024-05-01T00:00:00+00:00"]


def test_access_that_is_not_understood_is_refused_and_never_public(tmp_path: Path) -> None:
    rows = [
        {"document_id": str(n), "text": "x", "access": value} for n, value in enumerate([5, ["a", 1], {"a": 1}, [""]])
    ]
    result = list(_source(tmp_path, "jsonl", rows).documents())
    assert len(result) == 4
    assert all(isinstance(row, RejectedRow) and "access" in row.reason for row in result)


def test_bad_values_are_rejected_with_their_place(tmp_path: Path) -> None:
    source = _source(
        tmp_path,
        "jsonl",
        [
            {"document_id": "d", "text": "x"},
            {"document_id": None, "text": "x"},
            {"document_id": "e", "text": 3},
            {"document_id": "f"},
            {"document_id": "g", "text": "x", "updated_at": "soon"},
        ],
        [{"query_id": "q", "text": "y?"}, {"query_id": "r", "text": ""}, {"query_id": "", "text": "y"}],
        [{"query_id": "q", "document_id": "d", "grade": grade} for grade in (1, 2.0, "3", 1.5, True, None, "x")],
    )
    assert [(row.position, row.reason) for row in source.documents() if isinstance(row, RejectedRow)] == [
        ("documents.jsonl:2", "document_id: missing"),
        ("documents.jsonl:3", "text: not text"),
        ("documents.jsonl:4", "no column 'text'"),
        ("documents.jsonl:5", "updated_at: not an ISO 8601 time"),
    ]
    assert [row.position for row in source.queries() if isinstance(row, RejectedRow)] == [
        "queries.jsonl:2",
        "queries.jsonl:3",
    ]
    judgments = list(source.judgments())
    assert [row.grade for row in judgments if isinstance(row, Judgment)] == [1, 2, 3]
    assert [row.position for row in judgments if isinstance(row, RejectedRow)] == [
        f"judgments.jsonl:{line}" for line in (4, 5, 6, 7)
    ]


def test_broken_csv_rows_cost_only_themselves(tmp_path: Path) -> None:
    source = _source(tmp_path, "csv")
    (tmp_path / "documents.csv").write_bytes(
        b'document_id,text\na,good\nb\nc,x,y\nd,caf\xe9\n\ne,also good\nf,"it\'s"odd\ng,last\nh,"never closed\n'
    )
    rows = list(source.documents())
    assert [row.document_id for row in rows if isinstance(row, Document)] == ["a", "e", "g"]
    rejected = [(row.position, row.reason.partition(":")[0]) for row in rows if isinstance(row, RejectedRow)]
    assert rejected == [
        ("documents.csv:3", "1 fields instead of 2"),
        ("documents.csv:4", "3 fields instead of 2"),
        ("documents.csv:5", "not UTF-8"),
        ("documents.csv:8", "not CSV"),
        ("documents.csv:10", "not CSV"),
    ]


def test_long_csv_fields_are_read(tmp_path: Path) -> None:
    source = _source(tmp_path, "csv", [{"document_id": "d", "text": "x" * 500_000}])
    [document] = source.documents()
    assert isinstance(document, Document)
    assert len(document.text) == 500_000


@pytest.mark.parametrize("suffix", ["parquet", "csv.gz", "jsonl.gz"])
def test_a_file_that_breaks_off_is_a_source_error(tmp_path: Path, suffix: str) -> None:
    source = _source(tmp_path, suffix)
    path = tmp_path / f"documents.{suffix}"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="cannot be read"):
        list(source.documents())


def test_unknown_kinds_missing_files_and_unknown_columns_are_named(tmp_path: Path) -> None:
    _source(tmp_path, "csv")
    (tmp_path / "documents.xlsx").touch()
    settings = FilesSettings(documents="documents.csv", queries="queries.csv", judgments="judgments.csv")
    with pytest.raises(SourceError, match=r"corpus\.files\.documents: .*xlsx is of no known kind"):
        FilesSource(tmp_path, settings.model_copy(update={"documents": "documents.xlsx"}))
    with pytest.raises(SourceError, match=r"corpus\.files\.documents: no file missing\.csv in "):
        FilesSource(tmp_path, settings.model_copy(update={"documents": "missing.csv"}))
    with pytest.raises(SourceError, match="'txet' is none of our columns"):
        FilesSource(tmp_path, settings.model_copy(update={"columns": {"txet": "body"}}))
    with pytest.raises(SourceError, match=r"corpus\.path: no folder at"):
        open_source(CorpusSettings(source="files", path="x"), tmp_path / "x")


def test_fingerprint_follows_content_and_column_names(tmp_path: Path) -> None:
    first = _source(tmp_path, "csv").fingerprint()
    assert _source(tmp_path, "csv").fingerprint() == first
    assert _source(tmp_path, "csv", columns={"title": "source"}).fingerprint() != first
    assert _source(tmp_path, "csv", DOCUMENTS[:1]).fingerprint() != first


@pytest.mark.parametrize("name", ["documents.csv", "queries.csv", "judgments.csv"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for table, rows in (("documents", DOCUMENTS), ("queries", QUERIES), ("judgments", JUDGMENTS)):
        _save(folder / f"{table}.csv", rows)
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    tables = {table: f"{table}.csv" for table in ("documents", "queries", "judgments")}
    with pytest.raises(SourceError, match=f"corpus.files.{name[:-4]}: .* leads out of {folder}"):
        FilesSource(folder, FilesSettings.model_validate(tables))
    (folder / name).unlink()
    with pytest.raises(SourceError, match="leads out of"):
        FilesSource(folder, FilesSettings.model_validate({**tables, name[:-4]: f"../{name}"}))
