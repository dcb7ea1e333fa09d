"""The state of the code base in figures: `python -m bench.house`, half a minute; with `--tests` also `make check` and
`make test`.

Counts modules in the root of `models/`, circles of imports (those under TYPE_CHECKING too) and files that switch type
rules off, and times the starts that people wait for. Writes docs/benchmarks/house.json; figures there that this program
does not measure stay.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import grimp

from bench.folders import FIGURES, ROOT
from bench.results import merge_into

RESULTS = FIGURES / "house.json"
PACKAGES = ("models", "assets", "checks", "services", "orchestration")
_TYPES_OFF = re.compile(r"^# pyright: (?!strict|basic)", re.MULTILINE)
_STARTS = 5


def main() -> None:
    """Measure, print and write."""
    figures: dict[str, Any] = {
        "root_modules": len([path for path in (ROOT / "models").glob("*.py") if path.name != "__init__.py"]),
        "import_circles": len(import_circles()),
        "files_with_types_off": len(files_with_types_off()),
        "help_seconds": seconds_of([sys.executable, "-m", "orchestration.cli", "--help"]),
        "code_location_seconds": seconds_of([sys.executable, "-c", "import orchestration.definitions"]),
    }
    if "--tests" in sys.argv:
        figures["check_seconds"] = seconds_of(["make", "check"], runs=1)
        figures["test_seconds"] = seconds_of(["make", "test"], runs=1)
    print(merge_into(RESULTS, figures))


def import_circles() -> list[set[str]]:
    """The sets of modules that import each other around, by imports of all kinds: strongly connected components."""
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    reached = {module: _reached(module, imports) for module in imports}
    circles = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in imports
        if module in reached[module]
    }
    return sorted((set(circle) for circle in circles), key=sorted)


def _reached(module: str, imports: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        new = imports[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def files_with_types_off() -> list[Path]:
    """Python files that switch rules of the type checker off for the whole file."""
    folders = (*PACKAGES, "bench", "tests")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [path for path in files if _TYPES_OFF.search(path.read_text(encoding="utf-8"))]


def seconds_of(command: list[str], runs: int = _STARTS) -> float:
    """Median seconds of a command after one run that is not counted, where it is run more than once."""
    times = []
    for _ in range(runs + (runs > 1)):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": "."})
        times.append(time.perf_counter() - started)
    return round(median(times[-runs:]), 2)


if __name__ == "__main__":
    main()
