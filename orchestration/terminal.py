"""What a person sees: our lines on the terminal, everything that libraries print in a log file."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and line feed."""
_WIDTH = 140
"""Columns where the output is no terminal: tables keep their words."""
_LOGS_KEPT = 20
_TOLD = 10
"""Lines about one count."""
_COUNTED = re.compile(r"(?P<what>.+): (?P<done>\d+) of (?P<total>\d+)$")


class Interrupted(BaseException):
    """Ctrl-C or a termination signal. Not a KeyboardInterrupt, which the command line framework would take away."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.code = 128 + signal_number
        """Exit code by the convention of shells: 130 for Ctrl-C, 143 for termination."""


class _Console(Console):
    """Shows control characters of a corpus as such: a terminal would obey them."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_CONTROL.sub("\ufffd", segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error, wide where it is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, width=None if stream.isatty() else _WIDTH, highlight=False, emoji=False)


out, err = console(), console(stderr=True)


@contextmanager
def libraries_write_to(log: Path) -> Iterator[None]:
    """Send what is written to the file descriptors 1 and 2 to `log`; `out` and `err` stay where they were.

    Progress bars, warnings and log lines come from many libraries and from compiled code; this holds for all of them.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for ours, handle in zip((out, err), kept, strict=True):
        ours.file = os.fdopen(os.dup(handle), "w", encoding="utf-8", buffering=1)
    try:
        yield
    except Interrupted:
        # The thread of a run works on until the process ends; what it prints stays away from the terminal.
        raise
    except BaseException:
        _restore(kept)
        raise
    else:
        _restore(kept)


def _restore(kept: list[int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for handle, (number, ours) in zip(kept, ((1, out), (2, err)), strict=True):
        ours.file.close()
        ours.file = sys.stdout if number == 1 else sys.stderr
        os.dup2(handle, number)
        os.close(handle)


def new_log(home: Path, name: str) -> Path:
    """A log file of its own below `<home>/logs`; of one name the newest twenty are kept."""
    folder = home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob(f"{name}-*.log"))[: -_LOGS_KEPT + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"


class Lines:
    """A run as plain lines with the seconds since its start: for pipes, files and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.perf_counter()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def started(self, step: str) -> None:
        """Say nothing: what a step does, it says itself."""

    def ended(self, step: str) -> None:
        """Say nothing."""

    def said(self, line: str) -> None:
        """Print the line."""
        self._console.print(f"{time.perf_counter() - self._started:7.1f} s  {line}", markup=False, soft_wrap=True)


class Live(Lines):
    """The same lines on a terminal, with the running step and how far it is at the bottom."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def started(self, step: str) -> None:
        """Show the step."""
        self._progress.reset(self._task, total=None, description=escape(step.replace("__", "/", 1)))

    def said(self, line: str) -> None:
        """Move the bar where the line counts something, else print it above."""
        counted = _COUNTED.fullmatch(line)
        if counted is None:
            super().said(line)
            return
        done, total = int(counted["done"]), int(counted["total"])
        self._progress.update(self._task, description=escape(counted["what"]), completed=done, total=total)


def watch(console: Console) -> Lines:
    """How a run is shown on this console."""
    return Live(console) if console.is_terminal else Lines(console)


def reporter(lines: Lines) -> Callable[[str, int, int], None]:
    """Tells `lines` about a tenth of what it is told: (what, done, of how many)."""
    shown: dict[str, int] = {}

    def report(what: str, done: int, total: int) -> None:
        step = _TOLD * done // max(total, 1)
        if step > shown.get(what, -1):
            shown[what] = step
            lines.said(f"{what}: {done} of {total}")

    return report
