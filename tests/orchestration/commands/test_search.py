"""`rerankops search` as a process: one JSON value, trials in MLflow's database, and what it needs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from models.store.artifacts import ArtifactStore
from models.store.tables import write_table
from tests.commands import clean_environment, run_command
from tests.tiny_cross_encoder import examples, write_base


def search(home: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    options = [part for override in overrides for part in ("--set", override)]
    return run_command(
        "search", "--json", *options, env=clean_environment(RERANKOPS_HOME=str(home), OMP_NUM_THREADS="1")
    )


def test_it_searches_on_the_current_examples_and_prints_one_value(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def build(folder: Path) -> dict[str, int]:
        write_table(examples(20), folder / "training_examples.parquet")
        write_table(examples(6), folder / "development_lists.parquet")
        return {}

    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    asset = "training/training_examples"
    store.point(store.get_or_create(asset, code_version="1", inputs={}, settings={}, build=build))
    base = write_base(tmp_path / "base")
    done = search(
        home,
        f"training.base_model={base}",
        "training.max_tokens=32",
        "training.passage_cut=query",
        "training.frozen_layers=1",
        "training.compact_layers=[0]",
        "training.device=cpu",
        "search.pairs=24",
        "search.trials=2",
        "search.keys=['learning_rate']",
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, done.stdout
    parsed = json.loads(done.stdout)
    assert [trial["number"] for trial in parsed["trials"]] == [0, 1]
    assert parsed["trials"][0]["values"] == {"learning_rate": 2e-4}
    assert parsed["best"] in parsed["trials"]
    assert "trial 1: nDCG@10" in done.stderr
    assert len(list((home / "search").glob("*.journal"))) == 1
    assert (home / "mlflow" / "mlflow.db").exists()


def test_without_examples_it_says_how_to_make_them(tmp_path: Path) -> None:
    done = search(tmp_path / "home")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].startswith("training/training_examples has not been made yet")
