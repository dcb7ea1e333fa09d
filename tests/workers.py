"""Workers of pytest-xdist, forked from one process that has loaded the libraries.

Loading them takes more than ten seconds, which each worker and the fork server of its command lines would spend for
itself. Instead the process that hands out the tests starts the fork server of `tests.commands`, which forks a nursery.
Execnet starts a stub in place of an interpreter; the stub passes its standard streams to the nursery, which forks the
worker. Command lines of a worker come from the same fork server: multiprocessing hands its address down.
"""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import socket
import sys
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import forking

if TYPE_CHECKING:
    from collections.abc import Sequence

_STUB = Path(__file__).with_name("worker_stub.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Let execnet start the stub, where heavy tests are asked for: the others need none of the libraries."""
    if config.option.markexpr == "not heavy":
        return
    folder = TemporaryDirectory(prefix="workers-")
    listener = socket.socket(socket.AF_UNIX)
    address = str(Path(folder.name) / "socket")
    listener.bind(address)
    listener.listen()
    nursery = forking.Process(target=_fork_workers, args=(listener,))
    nursery.start()
    listener.close()
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(nursery.terminate)
    for spec in specs:
        assert spec.popen, "workers on other machines are not forked here"
        spec.python = shlex.join([sys.executable, "-I", "-S", str(_STUB), address])


def _fork_workers(listener: socket.socket) -> None:
    """Fork a worker for each stub that asks, until the process that started this one ends."""
    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in wait([listener, parent.sentinel]):
        stub, _ = listener.accept()
        code, streams, _, _ = socket.recv_fds(stub, 4096, 3)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _work(code.decode(), streams)
            return
        for stream in (*streams, stub.fileno()):
            os.close(stream)
        stub.detach()


def _work(code: str, streams: list[int]) -> None:
    """Become `python -c code` with these standard streams."""
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.argv = ["-c"]
    try:
        exec(code, {"__name__": "__main__"})
    finally:
        # Behind this multiprocessing ends the process without what an interpreter does at its end.
        atexit._run_exitfuncs()
