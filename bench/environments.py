"""Environments of programs that are measured against, or measure, and are no part of ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path


def environment(folder: Path, *packages: str, torch: bool = False) -> Path:
    """A Python with these packages, kept for the next time. As in `make setup`, pip finds the build of torch, and uv
    resolves the rest, in a minute where pip searches for long."""
    python = folder / "bin" / "python"
    installed = folder / "installed"
    if not installed.exists():
        venv.create(folder, with_pip=True)
        install = ("install", "--quiet")
        if torch:
            ours = version("torch").partition("+")[0]
            subprocess.run([python, "-m", "pip", *install, f"torch=={ours}"], check=True)
        subprocess.run([sys.executable, "-m", "uv", "pip", *install, "--python", python, *packages], check=True)
        installed.touch()
    return python
