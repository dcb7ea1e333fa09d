from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models.contracts.rows import RejectedRow
from models.corpus.sources.base import row_digest
from models.corpus.sources.lines import LongLine, read_json_lines, read_lines, read_text_lines
from models.errors import SourceError


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines_are_numbered_and_stripped_of_their_ends(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / name, b"\xef\xbb\xbfone\r\ntwo\n\nfour")
    assert list(read_lines(path)) == [(1, b"one"), (2, b"two"), (3, b""), (4, b"four")]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_line_that_is_too_long_costs_only_itself(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / name, b"a" * 10 + b"\n" + b"b" * 500 + b"\n" + b"c" * 10 + b"\n" + b"d" * 11)
    long = LongLine(b"b" * 12, row_digest(b"b" * 500 + b"\n"))
    assert list(read_lines(path, 10 + 1)) == [(1, b"a" * 10), (2, long), (3, b"c" * 10), (4, b"d" * 11)]


def test_bytes_that_are_no_text_are_rejected_with_their_place(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", b"good\nb\xffd\n\ngood again\n")
    first, bad, last = read_text_lines(path, "queries")
    assert (first, last) == (("a.jsonl:1", "good"), ("a.jsonl:4", "good again"))
    assert bad == RejectedRow("queries", "not UTF-8 at byte 1 of the line", "a.jsonl:2", "b\ufffdd", "encoding")
    assert isinstance(bad, RejectedRow)
    assert bad.digest == row_digest(b"b\xffd")


@pytest.mark.parametrize(
    ("line", "reason"), [("{", "not JSON"), ("[1]", "not list"), ("3", "not int"), ("[" * 100_000, "not JSON")]
)
def test_lines_that_hold_no_object_are_rejected(tmp_path: Path, line: str, reason: str) -> None:
    path = _write(tmp_path / "a.jsonl", f'{{"a": 1}}\n{line}\n'.encode())
    good, bad = read_json_lines(path, "documents")
    assert good == ("a.jsonl:1", {"a": 1})
    assert isinstance(bad, RejectedRow)
    assert reason in bad.reason
    assert bad.position == "a.jsonl:2"


@pytest.mark.parametrize("cut", [10, -10])
def test_a_file_that_breaks_off_is_a_source_error_naming_it(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 10_000)[:cut])
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz cannot be read"):
        list(read_lines(path))


def test_a_plain_file_named_gz_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text("{}")
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz cannot be read"):
        list(read_lines(tmp_path / "a.jsonl.gz"))
