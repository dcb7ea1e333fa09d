"""Command lines of RerankOps in processes of their own, as users start them but for the loading of libraries.

A command line loads some twenty seconds of libraries. Here it is forked from a process that has loaded them once, by
the fork server of multiprocessing. It has its own arguments, environment, output and exit code, loads the modules of
RerankOps itself, and may be interrupted and killed. What a start costs, and what it loads, is tested in
`tests/test_import_rules.py`, `tests/orchestration/test_definitions.py` and by the service, with processes that start
from nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from models.settings import ROOT
from tests.patience import PATIENCE_S

CLI = "orchestration.cli"

forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(["tests.preloaded"])


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without settings of RerankOps, but for these variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RERANKOPS_")} | variables


def run_command(
    *arguments: str, env: Mapping[str, str], module: str = CLI, cwd: Path = ROOT, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` with these arguments to its end, as `subprocess.run` does with captured output; `typed` is
    on its standard input."""
    with started(arguments, env=env, module=module, cwd=cwd, typed=typed) as command:
        return command.ended()


class Command:
    """A command that was started."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], module: str, cwd: Path, folder: Path) -> None:
        self.arguments = list(arguments)
        self._output, self._errors = folder / "stdout", folder / "stderr"
        files = (str(folder / "stdin"), str(self._output), str(self._errors))
        self._process = forking.Process(target=_main, args=(module, self.arguments, dict(env), str(cwd), files))
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process.pid is not None
        return self._process.pid

    def said(self) -> str:
        """What is on its standard output by now."""
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def logged(self) -> str:
        """What is on its standard error by now."""
        return self._errors.read_text(encoding="utf-8") if self._errors.exists() else ""

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None, f"{self.arguments} runs after {PATIENCE_S} s"
        output, errors = (file.read_text(encoding="utf-8") for file in (self._output, self._errors))
        return subprocess.CompletedProcess(self.arguments, self._process.exitcode, output, errors)

    def close(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.join()
        self._process.close()


@contextmanager
def started(
    arguments: Sequence[str], *, env: Mapping[str, str], module: str = CLI, cwd: Path = ROOT, typed: str = ""
) -> Iterator[Command]:
    """A command that runs while the block does, and is killed behind it if it has not ended."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "stdin").write_text(typed, encoding="utf-8")
        command = Command(arguments, env, module, cwd, Path(folder))
        try:
            yield command
        finally:
            command.close()


def _main(module: str, arguments: list[str], env: dict[str, str], cwd: str, files: tuple[str, str, str]) -> None:
    """Become `python -m module`."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for descriptor, path in enumerate(files):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.path[0] = cwd
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # Behind this multiprocessing ends the process without what an interpreter does at its end.
        atexit._run_exitfuncs()
