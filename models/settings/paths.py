"""Where the checkout and the settings file are."""

from __future__ import annotations

import os
from pathlib import Path

from models.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
SETTINGS_FILE = ROOT / "rerankops.toml"


def absolute(path: str | Path, variable: str) -> Path:
    """`path` from the working directory, `~` being the user's own folder. Raises `SettingsError` naming the environment
    `variable` where the user has none."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise SettingsError(f"{variable}: {path}: {error}", "Write the whole path, or set HOME.") from error


def settings_file() -> Path:
    """The settings file in use: `RERANKOPS_SETTINGS`, else `rerankops.toml` of the checkout."""
    return absolute(os.environ.get("RERANKOPS_SETTINGS") or SETTINGS_FILE, "RERANKOPS_SETTINGS")
