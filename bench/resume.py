"""SIGKILL in mid-training: `python -m bench.resume FOLDER [--set KEY=VALUE]`.

Makes the training examples and candidates of the deployment's settings in FOLDER/undisturbed, copies that home to
FOLDER/killed and trains and evaluates in both. In the second the run is killed twice with its children, once in each
training, at a random moment behind the first checkpoint. Writes `resume` of docs/benchmarks/results.json: where the
kills fell, whether the models are the same to the bit, and the metrics of both.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd

from bench.kill import finish, run_ids, running, start
from bench.results import merge
from orchestration.separate_runs import EVALUATION, SELECTION, store_in

_BEFORE = ('+key:"training/training_examples"', '+key:"index/candidates"')
_CHECKPOINT_MINUTES = 0.2
_LONGEST_S = 15.0
_SYSTEMS = ("compact", "large", "tiered")


def main() -> None:
    """Run, compare and write."""
    parser = argparse.ArgumentParser(description="A training that is killed and goes on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of both homes")
    options = parser.parse_args()
    settings = [f"training.checkpoint_minutes={_CHECKPOINT_MINUTES}", *options.set]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    evaluate = [*arguments, "--select", SELECTION]
    chance = random.Random(options.seed)
    homes = [options.folder.resolve() / name for name in ("undisturbed", "killed")]
    for selection in _BEFORE:
        finish(homes[0], *arguments, "--select", selection)
    if not homes[1].exists():
        shutil.copytree(homes[0], homes[1])
    finish(homes[0], *evaluate)
    kills = [kill(homes[1], evaluate, size, chance.uniform(0, _LONGEST_S)) for size in ("large", "compact")]
    finish(homes[1], *evaluate)
    print(merge({"resume": {"settings": settings, "kills": kills, **compared(*homes)}}))


def kill(home: Path, arguments: list[str], size: str, delay_s: float) -> dict[str, Any]:
    """Start the run and kill it and its children so long after the first checkpoint of a training."""
    before = run_ids(home)
    process = start(home, *arguments)
    scratch = home / "artifacts" / "scratch"
    while not list(scratch.glob(f"{size}-*/step-*/checkpoint.json")):
        if process.poll() is not None:
            raise SystemExit(f"the run ended before a checkpoint of the {size} model: {home / 'told.log'}")
        time.sleep(0.05)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    steps = sorted(int(path.name.partition("-")[2]) for path in scratch.glob(f"{size}-*/step-*"))
    facts = {"in": running(home, before), "behind_checkpoint_s": round(delay_s, 1), "goes_on_from_step": steps[-1]}
    print(facts, flush=True)
    return facts


def compared(first: Path, second: Path) -> dict[str, Any]:
    """Models and metrics of two homes."""
    stores = [store_in(home) for home in (first, second)]
    models = {
        size: len({store.require(f"training/{size}_reranker").data_version for store in stores}) == 1
        for size in ("large", "compact")
    }
    tables: list[Any] = [store.require(EVALUATION).read_table("per_query.parquet") for store in stores]
    of_measure: list[Any] = [table[table["measure"] == "nDCG@10"] for table in tables]
    both = pd.merge(*of_measure, on=["system", "query_id"], suffixes=("_undisturbed", "_killed"))
    metrics = {}
    for system in _SYSTEMS:
        rows = both[both["system"] == system]
        means = {name: round(float(rows[f"value_{name}"].mean()), 4) for name in ("undisturbed", "killed")}
        changed = int((rows["value_undisturbed"] != rows["value_killed"]).sum())
        metrics[system] = {**means, "queries": len(rows), "queries_that_differ": changed}
    return {"same_to_the_bit": models, "nDCG@10": metrics}


if __name__ == "__main__":
    main()
