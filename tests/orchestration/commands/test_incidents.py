"""`rerankops incidents` as a process, over a real database."""

from __future__ import annotations

import getpass
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from models.records.database import Database
from models.records.incidents import open_incident
from tests.commands import clean_environment, run_command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def ids(home: Path) -> list[str]:
    """Two open incidents, the first opened first."""
    home.mkdir()
    database = Database(f"sqlite:///{home / 'rerankops.db'}")
    database.migrate()
    drift = open_incident(database, "drift", {"day": "2026-11-29", "drift_share": 0.75})
    fault = open_incident(database, "fault", {"error": "OSError: [red]disk full[/]\nat write"})
    database.close()
    return [drift.incident_id, fault.incident_id]


def incidents(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("incidents", *arguments, env=clean_environment(RERANKOPS_HOME=str(home), COLUMNS="250"))


def told(home: Path, *arguments: str) -> Any:
    done = incidents(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def test_incidents_are_listed_until_they_are_closed_with_a_reason(home: Path, ids: list[str]) -> None:
    listed = told(home)
    assert [incident["id"] for incident in listed] == ids
    assert listed == told(home, "list")
    assert (listed[0]["kind"], listed[0]["evidence"]) == ("drift", {"day": "2026-11-29", "drift_share": 0.75})

    closed = told(home, "close", ids[0], "--why", "a holiday")
    assert (closed["id"], closed["closed_by"], closed["closed_note"]) == (ids[0], getpass.getuser(), "a holiday")
    assert [incident["id"] for incident in told(home)] == ids[1:]
    everything = told(home, "list", "--all")
    assert [incident["id"] for incident in everything] == ids[::-1]
    assert everything[1] == closed
    assert [incident["id"] for incident in told(home, "--all", "--limit", "1")] == ids[1:]


def test_a_table_shows_them_to_a_person(home: Path, ids: list[str]) -> None:
    done = incidents(home, "list")
    assert done.returncode == 0, done.stderr
    assert "day 2026-11-29, drift_share 0.75" in done.stdout
    assert "OSError: [red]disk full[/] at write" in done.stdout, "evidence is no markup"
    for name in ids:
        assert f"{name} closed" in incidents(home, "close", name, "--why", "looked [at]").stdout
    assert incidents(home).stdout == "No open incident.\n"
    assert incidents(home, "--all").stdout.count("[at]") == 2, "a note is no markup"


def test_what_cannot_be_closed_is_told(home: Path, ids: list[str]) -> None:
    unknown = incidents(home, "close", "i-none", "--why", "typo")
    assert unknown.returncode == 1
    assert "there is no incident i-none" in unknown.stderr
    assert "rerankops incidents --all" in unknown.stderr
    without = incidents(home, "close", ids[0])
    assert without.returncode == 2
    assert "--why" in without.stderr
