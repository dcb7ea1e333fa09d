from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.contracts.rows import RejectedRow
from models.corpus.sources.tables import ColumnNames, read_table_file
from models.errors import SourceError

NAMES = ColumnNames({}, "corpus.files.columns")


def _rows(path: Path, table: str = "documents", names: ColumnNames = NAMES, limit: int = 10**9) -> list[Any]:
    return list(read_table_file(path, table, names, limit))


def _text(values: Sequence[bytes]) -> pa.Array:
    """A column of text whose bytes need not be UTF-8."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def test_parquet_values_without_a_form_in_python_cost_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    years = pa.array([0, 2**62, 0], pa.timestamp("us"))
    table = pa.table(
        {"document_id": ["a", "b", "c"], "text": _text([b"good", b"good", b"caf\xe9"]), "updated_at": years}
    )
    pq.write_table(table, path)
    good, late, bad = _rows(path)
    assert good[0] == "a.parquet:1"
    assert good[1]["text"] == "good"
    assert isinstance(late, RejectedRow)
    assert (late.position, late.reason.partition(":")[0]) == ("a.parquet:2", "updated_at")
    assert json.loads(late.row) == {"document_id": "b", "text": "good"}
    assert isinstance(bad, RejectedRow)
    assert (bad.position, bad.reason) == ("a.parquet:3", "text: not UTF-8")


def test_parquet_that_expands_to_more_than_the_limit_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"document_id": ["a"], "text": ["x" * 1_000_000]}), path, compression="zstd")
    assert len(_rows(path, limit=2_000_000)) == 1
    with pytest.raises(SourceError, match=r"a\.parquet expands to more than 1,000 bytes") as error:
        _rows(path, limit=1000)
    assert "corpus.max_decompressed_bytes" in error.value.hint


def test_parquet_corrupted_in_the_middle_is_a_source_error_and_never_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"document_id": [f"d{n}" for n in range(5000)], "text": [f"text {n} " * 20 for n in range(5000)]})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True, row_group_size=1000)
    data, good = path.read_bytes(), _rows(path)
    errors = []
    places = range(len(data) // 10, len(data) - 2000, len(data) // 20)
    for index in places:
        path.write_bytes(data[:index] + bytes(64) + data[index + 64 :])
        try:
            assert _rows(path) == good  # where only the statistics of a page were hit
        except SourceError as error:
            errors.append(error.message)
    assert len(errors) > len(places) // 2
    assert all(message.startswith(f"{path} cannot be read: ") for message in errors)


def test_nested_columns_are_refused_row_by_row_or_ignored(tmp_path: Path) -> None:
    from models.corpus.sources.raw_rows import read_documents

    path = tmp_path / "a.parquet"
    rows = [
        {"document_id": "a", "text": {"de": "Eins", "en": "One"}, "other": [{"x": [1]}]},
        {"document_id": "b", "text": None, "other": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    result = list(read_documents(_rows(path), "a"))
    assert [row.reason for row in result if isinstance(row, RejectedRow)] == ["text: not text", "text: missing"]


def test_columns_that_occur_twice_are_a_source_error(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["document_id", "text", "text"]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("document_id,text,text\na,b,c\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(SourceError, match="more than one column 'text'"):
            _rows(tmp_path / name)


def test_json_rows_without_a_column_are_refused_where_others_have_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"document_id": "a"}\n{"document_id": "b", "text": "x"}\n{}\n')
    first, good, last = _rows(path)
    assert isinstance(first, RejectedRow)
    assert first.reason == "no column 'text'"
    assert good == ("a.jsonl:2", {"document_id": "b", "text": "x"})
    assert isinstance(last, RejectedRow)
    assert last.reason == "no column 'document_id', 'text'"


@pytest.mark.parametrize("count", [1, 5000])
def test_json_without_any_row_that_has_the_columns_is_a_source_error(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": "x"}\n' * count)
    with pytest.raises(SourceError, match=r"a\.jsonl has no column 'document_id'; it has: id, text"):
        _rows(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.csv.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("content", ["empty", "folder", "junk", "gone"])
def test_what_is_no_such_file_is_a_source_error(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content != "gone":
        path.write_bytes(b"" if content == "empty" else b"\x00\xff" * 5000)
    if name in ("a.jsonl", "a.jsonl.gz") and content == "empty":
        assert not _rows(path)
    elif name == "a.jsonl" and content == "junk":
        assert all(isinstance(row, RejectedRow) for row in _rows(path))
    else:
        with pytest.raises(SourceError, match=r"cannot be read|has no header|has no column"):
            _rows(path)
