"""A process of its own that parses files under limits of time and memory: a file made to harm costs itself only.

The parent opens the file and hands over the descriptor, so that the child needs no path. Messages on the socket between
them are JSON behind eight bytes of length. The child limits its own memory (RLIMIT_AS, which macOS does not enforce)
and, for each file, its processor time (RLIMIT_CPU): unlike time on the wall it does not depend on what else runs, so
that the same files are refused on a busy machine. The parent starts another child when one is killed, hangs or crashes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from models.corpus.parsing.parsers import PARSER_MODULES, Parsed, ParseError, parse_file
from models.errors import SourceError

_LENGTH_BYTES = 8
_ESCAPED_BYTES = 12
"""Bytes that JSON takes for a character, at most."""

_START_SECONDS = 60.0
_WALL_SECONDS = 60.0
_WALL_SHARE = 10
"""How much longer than its processor time a file may take, where the machine is busy."""

_END_SECONDS = 5.0
"""How long a child that has closed its end may take to end, for its exit code."""

_ROOT = Path(__file__).resolve().parents[3]


class ParserProcess:
    """Parses one file after another in a child process; use it as a context manager.

    `seconds` of processor time, up to the next second, and `memory_mb` (MiB) are what one file may take,
    `max_characters` how much text it may have.
    """

    def __init__(self, seconds: float, memory_mb: int, max_characters: int) -> None:
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._max_characters = max_characters
        self._max_bytes = _ESCAPED_BYTES * max_characters + 1_000_000
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> ParserProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def parse(self, kind: str, descriptor: int) -> Parsed:
        """Parse the open file behind `descriptor`; see `models.corpus.parsing.parsers.parse_file`.

        Raises `ParseError`, also when the file takes too long or too much memory, or brings the parser down, and
        `SourceError` when there is no starting it.
        """
        connection = self._start()
        try:
            wall = _WALL_SECONDS + _WALL_SHARE * self._seconds
            connection.settimeout(wall)
            socket.send_fds(connection, [_frame({"kind": kind, "seconds": self._seconds})], [descriptor])
            answer = _receive(connection, time.monotonic() + wall, self._max_bytes)
        except TimeoutError as error:
            self._stop()
            raise ParseError("the parser hangs on it") from error
        except (OSError, EOFError, ValueError) as error:
            ended = self._stop(_END_SECONDS)
            if ended == f"signal {signal.SIGXCPU}":
                raise ParseError(f"it takes longer than {self._seconds:g} seconds to parse") from error
            raise ParseError(f"it brings the parser down ({ended})") from error
        if answer.get("memory"):
            self._stop()
            raise ParseError(f"it takes more than {self._memory_mb} MiB to parse")
        if "error" in answer:
            raise ParseError(answer["error"], answer["rule"])
        return Parsed(answer["title"], answer["text"], answer["front"])

    def _start(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._child = subprocess.Popen(
                [*command, str(self._memory_mb), str(self._max_characters)],
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._socket = ours
        try:
            _receive(ours, time.monotonic() + _START_SECONDS, 1000)
        except (OSError, EOFError, ValueError) as error:
            ended = self._stop(_END_SECONDS)
            hint = "Raise corpus.folder.parse_memory_mb, and see what `python -m models.corpus.parsing.process` says."
            raise SourceError(f"the process that parses files does not start ({ended})", hint) from error
        return ours

    def _stop(self, seconds: float = 0) -> str:
        """Kill the child, if it has not ended within `seconds`, and say how it ended."""
        child, self._child = self._child, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if child is None:
            return "not started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        child.kill()
        code = child.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _frame(message: dict[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _receive(connection: socket.socket, deadline: float, limit: int) -> dict[str, Any]:
    length = int.from_bytes(_receive_bytes(connection, _LENGTH_BYTES, deadline), "big")
    if length > limit:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(_receive_bytes(connection, length, deadline))


def _receive_bytes(connection: socket.socket, count: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        if not (part := connection.recv(min(count - len(data), 1 << 20))):
            raise EOFError("the other end is closed")
        data += part
    return bytes(data)


def _serve(connection: socket.socket, memory_mb: int, max_characters: int) -> None:
    """The child: answer until the parent goes away."""
    for module in PARSER_MODULES:
        importlib.import_module(module)
    _limit_memory(memory_mb)
    connection.sendall(_frame({}))
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        if not data or not descriptors:
            return
        request = json.loads(data[_LENGTH_BYTES:])
        _limit_time(request["seconds"])
        try:
            with io.FileIO(descriptors[0], closefd=True) as file:
                parsed = parse_file(request["kind"], file.readall(), max_characters)
            if len(parsed.text) > max_characters:
                raise ParseError(f"its text is longer than {max_characters:,} characters", "too_long")
            answer = _frame({"title": parsed.title, "text": parsed.text, "front": parsed.front})
        except ParseError as error:
            answer = _frame({"error": str(error), "rule": error.rule})
        except RecursionError:
            answer = _frame({"error": "it is nested too deep", "rule": "malformed"})
        except MemoryError:
            answer = _frame({"memory": True})
        connection.sendall(answer)


def _limit_time(seconds: float) -> None:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(usage.ru_utime + usage.ru_stime + seconds), hard))


def _limit_memory(memory_mb: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
