"""Fixtures for tests that must hold on both databases: real SQLite files and a real PostgreSQL server.

`tests/conftest.py` names this module as a plugin, so that there is one server for all tests of a session.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from models.records.database import Database
from tests.patience import PATIENCE_S

__all__ = [
    "RunPython",
    "database",
    "database_url",
    "new_database_url",
    "postgresql_server",
    "run_python",
    "start_together",
]

RunPython = Callable[..., subprocess.Popen[str]]

_START_ATTEMPTS = 3
_OWNERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root.


def _server_folder() -> Path | None:
    """Folder of initdb and pg_ctl: from PATH, pg_config, or where Debian and Homebrew put them."""
    folders = [Path(result).parent for result in [shutil.which("initdb")] if result]
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(answer.stdout.strip()))
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders += [*Path("/opt/homebrew/opt").glob("postgresql*/bin"), *Path("/usr/local/opt").glob("postgresql*/bin")]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


def _owner() -> str | None:
    """The user that the server runs as, where it may not be this one."""
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _OWNERS if name in names), None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(command: list[str | Path], folder: Path, owner: str | None) -> subprocess.CompletedProcess[bytes]:
    # Output goes to a file: the server would keep a pipe open for as long as it runs.
    log = folder / "commands.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    with log.open("ab") as output:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=PATIENCE_S,
            check=False,
            user=owner,
            group=None if owner is None else _group(owner),
            extra_groups=None if owner is None else [],
        )


def _group(owner: str) -> int:
    import pwd

    return pwd.getpwnam(owner).pw_gid


def _start(binaries: Path, folder: Path, owner: str | None) -> int | None:
    """Start the server on a free port; None when the port was taken in the meantime or the start failed."""
    port = _free_port()
    options = f"-p {port} -h 127.0.0.1 -k {folder} -F -c full_page_writes=off -c shared_buffers=16MB"
    command = [
        binaries / "pg_ctl",
        "-D",
        folder / "data",
        "-l",
        folder / "server.log",
        "-w",
        "-t",
        f"{PATIENCE_S:.0f}",
        "-o",
        options,
        "start",
    ]
    return port if _run(command, folder, owner).returncode == 0 else None


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """`running_postgresql` for all tests of a worker."""
    with running_postgresql() as url:
        yield url


@contextmanager
def running_postgresql() -> Iterator[str]:
    """URL of a running server's `postgres` database, without a driver name: `postgresql://user@127.0.0.1:port/postgres`."""
    binaries, owner = _server_folder(), _owner()
    if binaries is None:
        pytest.fail("these tests need the PostgreSQL server programs initdb and pg_ctl: run .ci/servers", pytrace=False)
    if os.geteuid() == 0 and owner is None:
        pytest.fail(
            "PostgreSQL refuses root, and there is neither a user postgres nor nobody: run as another user",
            pytrace=False,
        )
    # A short path that the owner may enter: sockets allow 103 characters on macOS, and pytest's folders are private.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp" if owner else None))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        initialize = [
            binaries / "initdb",
            "-D",
            folder / "data",
            "-U",
            "rerankops",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        ]
        if _run(initialize, folder, owner).returncode != 0:
            pytest.fail(f"initdb failed:\n{_logs(folder)}", pytrace=False)
        port = next((port for _ in range(_START_ATTEMPTS) if (port := _start(binaries, folder, owner))), None)
        if port is None:
            pytest.fail(f"PostgreSQL did not start:\n{_logs(folder)}", pytrace=False)
        try:
            yield f"postgresql://rerankops@127.0.0.1:{port}/postgres"
        finally:
            _run([binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop"], folder, owner)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """A function that makes an empty database of each kind and returns its URL; they go away with the test."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path / f'{uuid4().hex[:8]}.db'}"
        return
    server = request.getfixturevalue("postgresql_server")
    built: list[str] = []

    def create() -> str:
        name = f"test_{uuid4().hex[:12]}"
        _execute(server, f"CREATE DATABASE {name}")
        built.append(name)
        return server.replace("postgresql://", "postgresql+psycopg://").removesuffix("postgres") + name

    yield create
    for name in built:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(new_database_url: Callable[[], str]) -> str:
    """URL of an empty database, without tables; the test runs once per kind of database."""
    return new_database_url()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh migrated database; the test runs once per kind of database."""
    fresh = Database(database_url)
    fresh.migrate()
    yield fresh
    fresh.close()


@pytest.fixture
def run_python() -> Iterator[RunPython]:
    """A function that starts a process running `code` with `arguments` from the checkout; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def start_together(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let processes that print `ready` and then read a line go on at once; returns what each prints until its end."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = []
    for process in processes:
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        printed.append(output)
    return printed


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())
