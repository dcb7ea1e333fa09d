"""Where benchmarks find data sets and leave figures."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "benchmarks"
DATA = Path(os.environ.get("RERANKOPS_DATA") or ROOT.parent / "shared" / "data")
"""Folders in BEIR layout."""
