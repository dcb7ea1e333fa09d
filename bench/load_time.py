"""How long the code location takes to load: `python -m bench.load_time [processes]`.

Every run of Dagster and every command pays this. Each figure is of processes of their own: a bare interpreter, Dagster
alone, the definitions imported, and all jobs resolved as Dagster's server does. Processor seconds hardly depend on what
else the machine does. Then the packages, ours by module, that cost most by `-X importtime`.
"""

import re
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter

from bench.folders import ROOT

_PROGRAMS = {
    "interpreter": "pass",
    "dagster": "import dagster",
    "definitions": "import orchestration.definitions",
    "definitions, jobs resolved": (
        "from orchestration.definitions import defs; defs.get_repository_def().load_all_definitions()"
    ),
}
_SHOWN = 12


def main() -> None:
    """Measure in fresh processes, the first as a warm-up, and print the seconds and the costly imports."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for name, program in _PROGRAMS.items():
        wall, cpu = zip(*[_run(program)[:2] for _ in range(processes + 1)][1:], strict=True)
        print(
            f"{statistics.median(wall):6.2f} s ({min(wall):.2f} to {max(wall):.2f}), "
            f"processor {statistics.median(cpu):.2f} s ({min(cpu):.2f} to {max(cpu):.2f})  {name}"
        )
    own: Counter[str] = Counter()
    for line in _run(_PROGRAMS["definitions"], "-X", "importtime")[2].splitlines():
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", line):
            own[_owner(match[2])] += int(match[1])
    print(f"\nown time of imports by package, {sum(own.values()) / 1e6:.2f} s in all:")
    for package, microseconds in own.most_common(_SHOWN):
        print(f"{microseconds / 1000:8.0f} ms  {package}")


def _run(program: str, *options: str) -> tuple[float, float, str]:
    """Wall seconds and processor seconds of a process, and what it wrote to standard error."""
    before, started = _children_cpu(), time.perf_counter()
    command = [sys.executable, *options, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, _children_cpu() - before, done.stderr


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _owner(module: str) -> str:
    """Our modules by name, others by their package."""
    package = module.partition(".")[0]
    return module if package in {"models", "assets", "checks", "orchestration"} else package


if __name__ == "__main__":
    main()
