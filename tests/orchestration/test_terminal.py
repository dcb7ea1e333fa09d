"""What reaches the terminal and what a log file."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from models.settings import ROOT
from orchestration.terminal import Lines, Live, console, new_log, reporter, watch


def test_plain_lines_are_kept_whole_and_are_no_markup() -> None:
    told = io.StringIO()
    with Lines(Console(file=told, width=40)) as lines:
        lines.started("corpus__read")
        lines.said("corpus.files.columns[text]: " + "a long line " * 9)
        lines.said("passages embedded: 3 of 9")
        lines.ended("corpus__read")
    first, second = told.getvalue().splitlines()
    assert first.endswith("s  corpus.files.columns[text]: " + "a long line " * 9)
    assert second.endswith("s  passages embedded: 3 of 9")


def test_of_what_is_counted_about_ten_lines_are_told() -> None:
    told = io.StringIO()
    with Lines(Console(file=told)) as lines:
        report = reporter(lines)
        for done in range(1, 101):
            report("passages embedded", done, 100)
            report("queries retrieved", done, 100)
    said = [line.partition("s  ")[2] for line in told.getvalue().splitlines()]
    assert said[:4] == [
        f"{what}: {done} of 100" for done in (1, 10) for what in ("passages embedded", "queries retrieved")
    ]
    assert len(said) == 22
    assert said[-1] == "queries retrieved: 100 of 100"


def test_a_terminal_sees_the_running_step_and_how_far_it_is() -> None:
    told = io.StringIO()
    console = Console(file=told, width=100, force_terminal=True, color_system=None)
    with Live(console) as live:
        live.started("training__large_reranker")
        live._progress.refresh()
        live.said("training steps: 3 of 9")
        live._progress.refresh()
        live.said("training/large_reranker abc: made in 3.0 s")
        live.ended("training__large_reranker")
    frames = told.getvalue()
    assert "training/large_reranker" in frames
    assert "training steps" in frames
    assert "training steps: 3 of 9" not in frames, "a count moves the bar"
    assert "training/large_reranker abc: made in 3.0 s" in frames


def test_the_live_line_is_for_terminals_only() -> None:
    assert type(watch(Console(file=io.StringIO()))) is Lines
    assert type(watch(Console(file=io.StringIO(), force_terminal=True))) is Live


PROGRAM = """
import os, subprocess, sys, warnings
from pathlib import Path
from orchestration.terminal import err, libraries_write_to, out
out.print("before")
with libraries_write_to(Path(sys.argv[1])):
    print("printed by a library")
    os.write(1, b"written by compiled code\\n")
    subprocess.run(["echo", "said by a child"], check=True)
    warnings.warn("a warning")
    out.print("ours on standard output")
    err.print("ours on standard error")
print("after")
"""


def test_what_libraries_write_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["before", "ours on standard output", "after"]
    assert done.stderr.splitlines() == ["ours on standard error"]
    text = log.read_text()
    for line in ("printed by a library", "written by compiled code", "said by a child", "UserWarning: a warning"):
        assert line in text


def test_of_each_command_the_newest_logs_are_kept(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "serve-1.log").touch()
    for day in range(10, 40):
        (tmp_path / "logs" / f"run-200001{day}T000000-1.log").touch()
    new_log(tmp_path, "run").touch()
    kept = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert len(kept) == 21
    assert kept[0] == "run-20000121T000000-1.log"
    assert kept[-1] == "serve-1.log"


def test_a_terminal_does_not_obey_what_a_corpus_says() -> None:
    """Escape sequences of a row set titles, hide lines and, in some terminals, write files."""
    shown = console()
    shown.file = io.StringIO()
    table = Table("reason")
    table.add_row("\x1b]0;title\x07 \x9b2J")
    shown.print(table)
    shown.print("\x1b[2Jrow\x08", markup=False)
    assert not any(sign in shown.file.getvalue() for sign in "\x1b\x07\x08\x9b")
    assert "\ufffd]0;title" in shown.file.getvalue()
