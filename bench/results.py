"""docs/benchmarks/results.json, to which each benchmark adds its own figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "results.json"


def merge(figures: Mapping[str, Any]) -> str:
    """Add figures, table into table, and leave the others as they are; returns the whole file."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    text = json.dumps(_merged(known, figures), indent=1, sort_keys=True) + "\n"
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = RESULTS.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(RESULTS)
    return text


def _merged(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    both = {name for name in added if isinstance(known.get(name), Mapping) and isinstance(added[name], Mapping)}
    return {**known, **added, **{name: _merged(known[name], added[name]) for name in both}}
