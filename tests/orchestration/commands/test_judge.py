"""`rerankops judge` as a process, on the small deployment, answered by one who knows its handbook."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from models.records.database import Database
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from tests.commands import clean_environment, run_command
from tests.small_bundle import Handbook, Small, put_in_service

Judge = Callable[..., CompletedProcess[str]]


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    file = tmp_path / "queries.txt"
    file.write_text("".join(f"{query.text}\n" for query in Handbook().queries() if query.split == "test"))
    return file


@pytest.fixture
def judge(small: Small, tmp_path: Path, tracking: Tracking, queries: Path) -> Judge:
    """Runs the command on a deployment whose champion is the small one's first candidate."""
    records = Database(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()
    put_in_service(Ledger(records), small.first, tracking.ensure_version("reranker", small.first.bundle))
    records.close()
    environment = clean_environment(
        RERANKOPS_HOME=str(tmp_path / "home"),
        RERANKOPS_STORAGE__ARTIFACTS=small.settings.artifact_root,
        RERANKOPS_STORAGE__DATABASE_URL=f"sqlite:///{tmp_path / 'records.db'}",
        RERANKOPS_STORAGE__MLFLOW_URI=tracking.uri,
        COLUMNS="120",
    )

    def run(*arguments: str, typed: str) -> CompletedProcess[str]:
        return run_command("judge", str(queries), *arguments, env=environment, typed=typed)

    return run


def test_what_a_person_types_is_kept_and_gone_on_with(judge: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "judged"
    first = judge("--count", "6", "--json", typed="1\n0\nx\n\ns\nq\n")
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert (result["judged"], result["queries"]) == (2, 25)
    assert result["folder"] == str(folder)
    assert result["low"] <= result["difference"] <= result["high"]
    assert first.stderr.count("Numbers from 1 to ") == 2, "0 and x are none of them"
    assert "tiered" not in first.stderr, "blind to the system"
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["test", "test"]

    second = judge("--count", "6", typed="2+\n" * 9)
    assert second.returncode == 0, second.stderr
    assert "6 judged" in second.stdout
    grades = [json.loads(line)["grade"] for line in (folder / "judgments.jsonl").read_text().splitlines()]
    assert grades.count(2) == 4
    again = judge("--count", "6", typed="")
    assert again.stdout == second.stdout
    assert "answered by:" not in again.stderr


def test_queries_that_cannot_be_read_stop_it(judge: Judge, queries: Path) -> None:
    queries.unlink()
    result = judge(typed="")
    assert result.returncode == 1
    assert f"{queries} cannot be read" in result.stderr
