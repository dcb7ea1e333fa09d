"""What takes long to make, made by one worker of pytest-xdist for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_MADE = ".made"


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Let the first process that asks for `folder` fill it, while the others wait; `make` goes on where one failed."""
    folder.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _MADE).exists():
            make(folder)
            (folder / _MADE).touch()
    return folder
