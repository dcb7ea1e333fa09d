"""The whole graph with the tiny preset on installed packages, twice: the second run recomputes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def rerankops(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RERANKOPS_")}
    environment |= {"RERANKOPS_HOME": str(home), "RERANKOPS_PRESET": "tiny", "RERANKOPS_SERVING__PORT": "18317"}
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


@pytest.mark.timeout(2400)
def test_the_lifecycle_releases_once_and_reuses_everything_after(tmp_path: Path) -> None:
    first = rerankops(tmp_path, "run")
    assert first.returncode == 0, first.stdout + first.stderr
    status = json.loads(rerankops(tmp_path, "status", "--json").stdout)
    assert status["gate"]["decision"] == "released"
    assert {"version", "index_version", "corpus_version"} <= set(status["champion"])
    for system in ("bm25", "dense", "hybrid", "compact", "large", "tiered"):
        assert 0 < status["evaluation"][system]["nDCG@10"] <= 1

    again = rerankops(tmp_path, "run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "training/large_reranker" in again.stdout
    after = json.loads(rerankops(tmp_path, "status", "--json").stdout)
    assert after["champion"] == status["champion"]
    assert after["gate"]["decision"] == "current"
    models = [path for path in (tmp_path / "artifacts" / "objects" / "training").glob("*/*") if path.is_dir()]
    assert len(models) == 3

    nothing = rerankops(tmp_path, "rollback")
    assert nothing.returncode == 1
    assert "no earlier release" in nothing.stderr


def test_a_wrong_setting_stops_before_any_work(tmp_path: Path) -> None:
    found = rerankops(tmp_path, "run", "--set", "training.sed=1")
    assert found.returncode == 1
    assert "training.sed" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "artifacts").exists()
