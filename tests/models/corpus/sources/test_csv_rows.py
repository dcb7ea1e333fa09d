from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models.contracts.rows import RejectedRow
from models.corpus.sources.csv_rows import read_csv_rows
from models.errors import SourceError


def _read(path: Path, data: bytes, max_bytes: int = 1000) -> list[tuple[str, list[str] | str]]:
    """(position, fields, or why they are none) of all rows."""
    path.write_bytes(data)
    header, *rows = read_csv_rows(path, "documents", max_bytes=max_bytes)
    assert isinstance(header, list)
    result: list[tuple[str, list[str] | str]] = []
    for row in rows:
        assert not isinstance(row, list)
        result.append(
            (row.position.partition(":")[2], row.reason)
            if isinstance(row, RejectedRow)
            else (row[0].partition(":")[2], row[1])
        )
    return result


def test_quotes_commas_and_line_ends_inside_fields_are_read(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,text\r\na,"one, ""two""\nthree"\r\n\r\nb,four\n'
    assert _read(tmp_path / "a.csv", data) == [("2", ["a", 'one, "two"\nthree']), ("5", ["b", "four"])]


def test_a_quote_that_is_never_closed_costs_its_line_only(tmp_path: Path) -> None:
    data = b'id,text\na,good\nb,"open\nc,three\nd,four\n'
    assert _read(tmp_path / "a.csv", data) == [
        ("2", ["a", "good"]),
        ("3", "not CSV: unexpected end of data"),
        ("4", ["c", "three"]),
        ("5", ["d", "four"]),
    ]


def test_rows_behind_a_stray_quote_are_not_swallowed(tmp_path: Path) -> None:
    data = b'id,text\na,"open\nb,two\nc,"three"\nd,four\n'
    assert _read(tmp_path / "a.csv", data) == [
        ("2", "not CSV: ',' expected after '\"'"),
        ("3", ["b", "two"]),
        ("4", ["c", "three"]),
        ("5", ["d", "four"]),
    ]


def test_ragged_rows_and_wrong_encodings_are_refused_and_nul_is_left_to_the_corpus(tmp_path: Path) -> None:
    data = b"id,text\na\nb,x,y\nc,caf\xe9\nd,n\0ul\n"
    assert _read(tmp_path / "a.csv", data) == [
        ("2", "1 fields instead of 2"),
        ("3", "3 fields instead of 2"),
        ("4", "not UTF-8"),
        ("5", ["d", "n\0ul"]),
    ]


def test_lines_and_records_that_are_too_long_cost_themselves_only(tmp_path: Path) -> None:
    line = b"b," + b"x" * 2000
    record = b'c,"' + b"y" * 900 + b"\n" + b"y" * 200 + b'"'
    data = b"\n".join([b"id,text", b"a,good", line, record, b"d,good", b'e,"' + b"z" * 900, b"z" * 1500, b"f,good"])
    assert _read(tmp_path / "a.csv", data) == [
        ("2", ["a", "good"]),
        ("3", "line is longer than 1,000 bytes"),
        ("4", "not CSV: longer than 1,000 bytes"),
        ("5", "1 fields instead of 2"),
        ("6", ["d", "good"]),
        ("7", "not CSV: longer than 1,000 bytes"),
        ("8", "line is longer than 1,000 bytes"),
        ("9", ["f", "good"]),
    ]


@pytest.mark.parametrize("header", [b'"id,text\na,b\n', b"x" * 2000 + b"\na,b\n", b"id\rtext\ra\rb"])
def test_a_header_that_cannot_be_read_is_a_source_error(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(SourceError, match=r"a\.csv has no header that can be read"):
        _read(tmp_path / "a.csv", header)


def test_an_empty_file_has_an_empty_header(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.csv", b"") == []


def test_a_bomb_ends_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"id,text\n" + b"a,b\n" * 100_000))
    with pytest.raises(SourceError, match=r"expands to more than 1,000 bytes"):
        list(read_csv_rows(path, "documents", max_decompressed=1000))


@pytest.mark.heavy
def test_many_broken_records_are_each_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n" + b'a"b,"c""\n' * 20_000)
    _, *rows = read_csv_rows(path, "documents")
    assert [row.position for row in rows if isinstance(row, RejectedRow)] == [f"a.csv:{n + 2}" for n in range(20_000)]
