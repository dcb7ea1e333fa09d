from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.corpus.parsing.parsers import Parsed, ParseError
from models.corpus.parsing.process import ParserProcess
from models.errors import SourceError

pytestmark = pytest.mark.heavy


@contextmanager
def _opened(path: Path, data: bytes) -> Iterator[int]:
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _parse(parser: ParserProcess, folder: Path, data: bytes, kind: str = "markdown") -> Parsed:
    with _opened(folder / "file", data) as descriptor:
        return parser.parse(kind, descriptor)


def test_one_process_parses_many_files_and_ends_with_the_block(tmp_path: Path) -> None:
    with ParserProcess(30, 1024, 1000) as parser:
        for number in range(3):
            assert _parse(parser, tmp_path, f"# Title {number}\n\ntext".encode()) == Parsed(f"Title {number}", "text")
        child = parser._child
        assert child is not None
        with pytest.raises(ParseError, match="not UTF-8"):
            _parse(parser, tmp_path, b"\xff")
        assert parser._child is child
    assert child.poll() is not None


def test_a_file_that_takes_too_long_costs_itself_only(tmp_path: Path) -> None:
    # Unclosed links: the parser looks for the end of each of them from its start.
    slow = b"[a](<b" * 200_000
    with ParserProcess(0.5, 1024, 10_000_000) as parser:
        with pytest.raises(ParseError, match=r"takes longer than 0\.5 seconds"):
            _parse(parser, tmp_path, slow)
        parser._seconds = 30
        assert _parse(parser, tmp_path, b"good").text == "good"


def test_a_file_that_takes_too_much_memory_costs_itself_only(tmp_path: Path) -> None:
    with ParserProcess(60, 256, 1_000_000) as parser:
        with pytest.raises(ParseError, match="takes more than 256 MiB"):
            _parse(parser, tmp_path, b"x" * 300_000_000, "text")
        assert _parse(parser, tmp_path, b"good").text == "good"


def test_a_parser_that_crashes_costs_one_file(tmp_path: Path) -> None:
    with ParserProcess(30, 1024, 1000) as parser:
        _parse(parser, tmp_path, b"first")
        assert parser._child is not None
        parser._child.send_signal(signal.SIGSEGV)
        parser._child.wait()
        with pytest.raises(ParseError, match=r"brings the parser down \(signal 11\)"):
            _parse(parser, tmp_path, b"second")
        assert _parse(parser, tmp_path, b"third").text == "third"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("html", b"<div>" * 300_000 + b"deep"),
        ("html", b"<b><i>" * 100_000 + b"deep"),
        ("markdown", b">" * 200_000 + b" deep"),
        ("markdown", b"- " * 20_000 + b"deep"),
        ("markdown", b"[" * 50_000),
    ],
)
def test_deep_nesting_is_parsed_or_refused(tmp_path: Path, kind: str, data: bytes) -> None:
    with ParserProcess(1, 1024, 1_000_000) as parser:
        try:
            outcome = _parse(parser, tmp_path, data, kind).text
        except ParseError as error:
            outcome = str(error)
        assert re.search("deep|^it takes longer|^it brings the parser down", outcome) or kind == "markdown"
        assert _parse(parser, tmp_path, b"good").text == "good"


def test_more_text_than_allowed_is_refused(tmp_path: Path) -> None:
    with ParserProcess(30, 1024, 10) as parser:
        with pytest.raises(ParseError, match="longer than 10 characters"):
            _parse(parser, tmp_path, b"eleven char", "text")
        assert _parse(parser, tmp_path, "🙂".encode() * 10, "text").text == "🙂" * 10


def test_a_parser_that_cannot_start_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ParserProcess(30, 1024, 10) as parser, pytest.raises(SourceError, match=r"does not start \(exit code 1\)"):
        _parse(parser, tmp_path, b"good")
