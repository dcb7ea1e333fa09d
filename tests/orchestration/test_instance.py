"""Dagster's own files in a home whose name has another meaning in a URL."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from models.settings import Settings
from orchestration.instance import prepare_instance


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["a?b", "a%20b", "plain #1"])
def test_runs_are_kept_in_the_home_whatever_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    import dagster as dg

    home = tmp_path / "homes" / name
    monkeypatch.setenv("RERANKOPS_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = prepare_instance(Settings())
    assert Path(os.environ["DAGSTER_HOME"]).samefile(folder)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 0
    (database,) = folder.rglob("runs.db")
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert [path.name for path in (tmp_path / "homes").iterdir()] == [name]
