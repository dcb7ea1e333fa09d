"""docs/benchmarks/results.json, to which each benchmark adds its own figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.folders import FIGURES

RESULTS = FIGURES / "results.json"


def merge(figures: Mapping[str, Any]) -> str:
    """Add figures, table into table, and leave the others as they are; returns the whole file."""
    return merge_into(RESULTS, figures)


def merge_into(path: Path, figures: Mapping[str, Any]) -> str:
    """The same for a file of one benchmark."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps(_merged(known, figures), indent=1, sort_keys=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return text


def _merged(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    both = {name for name in added if isinstance(known.get(name), Mapping) and isinstance(added[name], Mapping)}
    return {**known, **added, **{name: _merged(known[name], added[name]) for name in both}}
