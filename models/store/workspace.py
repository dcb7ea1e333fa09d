"""Temporary folders that go away with their process: at the end of a block, or, after a kill, when the next one looks.

A process holds a lock on each folder that it works in, and whatever ends the process ends the lock. Machines that share
a file system need not share its locks, so each has a folder of its own, and judges those of others by their age.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED_AFTER_S = 24 * 3600
"""Age of a folder that nobody is known to work in any more."""


class Workspace:
    """The temporary folders below `root`, which all processes of all machines may use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ours = root / (platform.node() or "this-machine")

    @contextmanager
    def folder(self, name: str) -> Generator[Path]:
        """An empty folder, deleted at the end of the block unless it was moved away."""
        self._ours.mkdir(parents=True, exist_ok=True)
        gate = os.open(self._ours, os.O_RDONLY)
        try:
            # Whoever deletes takes this lock alone, so a folder is locked before anyone can find it without.
            _lock(gate, fcntl.LOCK_SH)
            folder = Path(tempfile.mkdtemp(dir=self._ours, prefix=f"{name}-"))
            handle = os.open(folder, os.O_RDONLY)
            _lock(handle, fcntl.LOCK_EX)
        finally:
            os.close(gate)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    def abandoned(self) -> list[Path]:
        """The folders whose process is gone, and those of other machines that are older than a day."""
        return [folder for folder in self._folders() if self._is_abandoned(folder)]

    def remove_abandoned(self) -> list[Path]:
        """Delete and return them. Nothing is deleted while another process of this machine begins or deletes one."""
        if not self._ours.is_dir():
            return []
        gate = os.open(self._ours, os.O_RDONLY)
        try:
            if not _lock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return []
            folders = self.abandoned()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            return folders
        finally:
            os.close(gate)

    def _folders(self) -> Iterator[Path]:
        try:
            machines = sorted(self._root.iterdir())
        except FileNotFoundError:
            return
        for machine in machines:
            if machine.is_dir():
                yield from sorted(folder for folder in machine.iterdir() if folder.is_dir())

    def _is_abandoned(self, folder: Path) -> bool:
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # its process has just moved or deleted it
            return False
        try:
            if folder.parent == self._ours:
                return _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return time.time() - os.fstat(handle).st_mtime > ABANDONED_AFTER_S
        finally:
            os.close(handle)


def _lock(handle: int, how: int) -> bool:
    """Take a lock on an open folder; False if another process has it."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    return True
