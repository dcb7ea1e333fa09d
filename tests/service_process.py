"""The service as users start it: a process of its own on a free port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.commands import Command, started
from tests.patience import PATIENCE_S, until

ROOT = Path(__file__).resolve().parent.parent
STARTING, STARTED = '"message": "starting"', '"message": "started"'
"""What the service logs when it opens its port, and when it has loaded what serves."""


@dataclass
class ServiceProcess:
    """A started `rerankops serve`."""

    process: subprocess.Popen[str]
    url: str
    home: Path
    log: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def key(self) -> str:
        """The key that the service made on its first start."""
        return (self.home / "api_key").read_text().strip()

    @property
    def scorer_pid(self) -> int:
        """The scoring process that was started last."""
        return _scorer_pid(self.log)

    def stop(self) -> int:
        """End it as a supervisor does; returns the exit code when its last line is in `log`."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@dataclass(frozen=True)
class ForkedService:
    """A started service whose libraries were loaded before."""

    command: Command
    url: str
    home: Path

    @property
    def key(self) -> str:
        """The key that the service made on its first start."""
        return (self.home / "api_key").read_text().strip()

    @property
    def scorer_pid(self) -> int:
        """The scoring process that was started last."""
        return _scorer_pid(self.command.logged().splitlines())


def _scorer_pid(log: Iterable[str]) -> int:
    return [json.loads(line)["pid"] for line in log if '"scoring process runs"' in line][-1]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def service_environment(home: Path, port: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of a deployment in `home` with default settings but for `settings` (SECTION__KEY)."""
    file = home / "settings.toml"
    file.write_text("", encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RERANKOPS_")}
    given = {"SERVING__PORT": str(port), **settings}
    own = {"RERANKOPS_HOME": str(home), "RERANKOPS_SETTINGS": str(file)}
    return inherited | own | {f"RERANKOPS_{name}": value for name, value in given.items()}


@contextmanager
def start_service(
    home: Path, *, port: int | None = None, until_logged: str = STARTED, **settings: str
) -> Iterator[ServiceProcess]:
    """Start the service, by default on a free port and loaded with what it serves; it ends with the block."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "serve"],
        cwd=ROOT,
        env=service_environment(home, port, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    service = ServiceProcess(process, f"http://127.0.0.1:{port}", home)
    listens, ended = threading.Event(), threading.Event()

    def follow_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            service.log.append(line)
            if until_logged in line:
                listens.set()
        ended.set()
        listens.set()

    def follow_output() -> None:
        assert process.stdout is not None
        service.printed.extend(process.stdout)

    followers = [threading.Thread(target=follow) for follow in (follow_log, follow_output)]
    for follower in followers:
        follower.start()
    try:
        listens.wait()
        assert not ended.is_set(), "the service did not start:\n" + "".join(service.log)
        yield service
    finally:
        if process.poll() is None:
            service.stop()
        for follower in followers:
            follower.join()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def fork_service(home: Path, **settings: str) -> Iterator[ForkedService]:
    """The same, forked with its libraries (`tests.commands`), which saves what a start from nothing takes; it is killed
    at the end of the block."""
    port = free_port()
    with started(("serve",), env=service_environment(home, port, settings)) as command:
        until(lambda: STARTED in command.logged() or not command.runs())
        assert command.runs(), f"the service did not start:\n{command.logged()}"
        yield ForkedService(command, f"http://127.0.0.1:{port}", home)
