"""Where the checkout and the settings file are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS_FILE = ROOT / "rerankops.toml"


def settings_file() -> Path:
    """The settings file in use: `RERANKOPS_SETTINGS`, else `rerankops.toml` of the checkout."""
    return Path(os.environ.get("RERANKOPS_SETTINGS") or SETTINGS_FILE).expanduser().absolute()
