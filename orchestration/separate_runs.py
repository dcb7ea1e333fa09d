"""The lifecycle up to the evaluation, in a process and a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from models.settings import ROOT, as_environment
from models.store.artifacts import Artifact, ArtifactStore

EVALUATION = "evaluation/offline_evaluation"
SELECTION = f'+key:"{EVALUATION}"'
"""Of Dagster: the evaluation and all that it is made from."""

_STORAGE = ("storage.artifacts=", "storage.database_url=", "storage.mlflow_uri=")
"""Of the home itself, wherever the deployment keeps its own."""


def run_to_evaluation(home: Path, overrides: Sequence[str], log: IO[bytes] | None = None) -> int:
    """Make the evaluation with settings `key=value` in `home`; returns the exit status. `log` takes all that is said.

    What is there already is not made again, and a run that was killed is gone on with."""
    changed = {**as_environment([*_STORAGE, *overrides]), "RERANKOPS_HOME": str(home)}
    program = [sys.executable, "-m", "orchestration.cli", "run", "--select", SELECTION]
    environment = {**os.environ, **changed}
    return subprocess.run(program, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode


def store_in(home: Path) -> ArtifactStore:
    """The artifacts of such a home."""
    return ArtifactStore(str(home / "artifacts"), home / "cache")


def evaluation_in(home: Path) -> Artifact:
    """Its current evaluation."""
    return store_in(home).require(EVALUATION)
