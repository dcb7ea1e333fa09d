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


def figures_of(name: str) -> Any:
    """The figures of a benchmark as they are now, {} where there are none."""
    return json.loads(RESULTS.read_text(encoding="utf-8")).get(name, {}) if RESULTS.exists() else {}


_CONDITIONS = ("threads", "corpus", "tokens_per_pair")
_NOISE = 0.1
"""Share by which two runs on a quiet machine may differ."""


def slower(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """Which pairs per second and speedups fell, and which milliseconds rose, by more than a tenth, as `path: before ->
    after`. Tables of other threads, another corpus or other lengths are not compared."""
    if any(before.get(name) != after.get(name) for name in _CONDITIONS):
        return []
    lines = []
    for name in before.keys() & after.keys():
        was, now, place = before[name], after[name], f"{path}{name}"
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            lines += slower(was, now, f"{place}.")
        elif isinstance(was, int | float) and isinstance(now, int | float):
            rates = "pairs_per_second" in place or name.startswith("speedup")
            times = "request_ms" in place
            if (rates and now < (1 - _NOISE) * was) or (times and now > (1 + _NOISE) * was):
                lines.append(f"{place}: {was} -> {now}")
    return sorted(lines)


def merge_into(path: Path, figures: Mapping[str, Any], depth: int | None = None) -> str:
    """The same for a file of one benchmark. Tables `depth` levels down, as those of one run, are replaced whole."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps(_merged(known, figures, depth), indent=1, sort_keys=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return text


def _merged(known: Mapping[str, Any], added: Mapping[str, Any], depth: int | None) -> dict[str, Any]:
    if depth == 0:
        return dict(added)
    both = {name for name in added if isinstance(known.get(name), Mapping) and isinstance(added[name], Mapping)}
    below = None if depth is None else depth - 1
    return {**known, **added, **{name: _merged(known[name], added[name], below) for name in both}}
