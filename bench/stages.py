"""Seconds of the stages and checks of the newest run of a home: `python -m bench.stages HOME`.

The checks are summed by what they do: contracts, expectations, leakage. Seconds are those of the clock.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path

_KINDS = {
    "expectation": "Great Expectations",
    "no_evaluation_query_in_training": "leakage",
    "splits_are_disjoint": "leakage",
    "contract": "contracts",
    "references_resolve": "contracts",
    "rejected_share": "contracts",
}
"""What a step is, by a part of its name; the first that fits counts."""


def main() -> None:
    """Print each step of the newest run, and the sums."""
    by_step = step_seconds(Path(sys.argv[1]))
    sums: defaultdict[str, float] = defaultdict(float)
    for step, seconds in by_step.items():
        sums[kind(step)] += seconds
        print(f"{seconds:9.2f} s  {step}")
    total = sum(by_step.values())
    print()
    for name, seconds in sorted(sums.items(), key=lambda item: -item[1]):
        print(f"{seconds:9.2f} s  {seconds / total:7.2%}  {name}")


def step_seconds(home: Path) -> dict[str, float]:
    """Seconds of each step of the newest run, in the order in which they began."""
    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        newest = instance.get_runs(limit=1)[0]
        ended = [
            (step.start_time, step.step_key, step.end_time - step.start_time)
            for step in instance.get_run_step_stats(newest.run_id)
            if step.end_time is not None and step.start_time is not None
        ]
    return {step: round(seconds, 3) for _, step, seconds in sorted(ended)}


def kind(step: str) -> str:
    """What a step does."""
    return next((name for part, name in _KINDS.items() if part in step), "assets")


if __name__ == "__main__":
    main()
