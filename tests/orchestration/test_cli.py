"""The command line as a process: exit codes, what is on which stream, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.commands import clean_environment, run_command, started
from tests.docs_corpus import docs_settings, write_docs_corpus
from tests.patience import until

NOISE = re.compile(r"Warning|it/s\]|\bINFO\b|\bDEBUG\b|Traceback|Loading weights")
"""What libraries print and a person should not see."""

Rerankops = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path, **variables: str) -> dict[str, str]:
    return clean_environment(RERANKOPS_HOME=str(home), RERANKOPS_PRESET="tiny", **variables)


@pytest.fixture
def rerankops(tmp_path: Path) -> Rerankops:
    """A function that runs the command line in a home of the test's own."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, env=environment(tmp_path / "home", **variables))

    return run


@pytest.fixture
def on_docs(tmp_path: Path) -> list[str]:
    """Options that read a small corpus."""
    write_docs_corpus(tmp_path / "docs", documents=120)
    return [option for key, value in docs_settings(tmp_path / "docs").items() for option in ("--set", f"{key}={value}")]


def one_value(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON value that is all of standard output."""
    assert len(done.stdout.splitlines()) == 1, done.stdout
    return json.loads(done.stdout)


def test_a_wrong_setting_stops_before_any_work(rerankops: Rerankops, tmp_path: Path) -> None:
    done = rerankops("run", "--set", "training.sed=1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: training.sed: no such setting\nDid you mean: training.seed")
    assert not NOISE.search(done.stderr)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("run", "--set", "training.dropout=2"), "training.dropout: ", "rerankops.toml states"),
        (("run", "--select", "corpus/pasages"), "--select corpus/pasages: is no selection", "corpus/passages"),
        (("rollback",), "there is no earlier release to roll back to", ""),
        (("query", "how?", "--set", "serving.port=1"), "no service answers at http://127.0.0.1:1", "rerankops serve"),
    ],
)
def test_an_expected_failure_is_told_in_words_and_as_json(
    rerankops: Rerankops, arguments: tuple[str, ...], error: str, hint: str
) -> None:
    done = rerankops(*arguments, "--json")
    result = one_value(done)
    assert (done.returncode, result["exit_code"]) == (1, 1)
    assert result["error"].startswith(error)
    assert hint in result["hint"]
    assert f"error: {result['error']}\n{result['hint']}" in done.stderr
    assert not NOISE.search(done.stderr)


def test_an_unexpected_failure_leaves_its_traceback_in_a_file(rerankops: Rerankops, tmp_path: Path) -> None:
    pointer = tmp_path / "home" / "artifacts" / "current" / "release" / "gate_decision.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("cut off in the mid")
    done = rerankops("status")
    assert done.returncode == 1
    assert re.search(r"^error: unexpected JSONDecodeError: .*\nThe traceback is in (\S+)\.$", done.stderr, re.M | re.S)
    assert not NOISE.search(done.stderr)
    (log,) = (tmp_path / "home" / "logs").glob("error-*.log")
    assert "Traceback (most recent call last)" in log.read_text()


def test_a_home_that_cannot_be_used_is_named(rerankops: Rerankops, tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = rerankops("status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: RERANKOPS_HOME: {tmp_path / 'home'} cannot be used: File exists\n")


def test_the_status_before_anything_was_made(rerankops: Rerankops) -> None:
    done = rerankops("status", "--json")
    result = one_value(done)
    assert done.returncode == 0
    assert (result["champion"], result["gate"], result["evaluation"], result["incidents"]) == (None, None, {}, [])
    assert "No release yet." in rerankops("status").stdout


def test_a_demo_does_not_start_beside_something_else(rerankops: Rerankops) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = rerankops("demo", "--set", f"serving.port={port}")
    assert done.returncode == 1
    assert f"error: serving.port: 127.0.0.1:{port} cannot be used" in done.stderr
    assert f"--set serving.port={port + 1}" in done.stderr


def test_a_part_of_the_lifecycle_as_json(rerankops: Rerankops, on_docs: list[str], tmp_path: Path) -> None:
    done = rerankops("run", "--json", "--select", "group:corpus", *on_docs)
    result = one_value(done)
    assert (done.returncode, result["exit_code"], result["outcome"], result["failures"]) == (0, 0, "made", {})
    assert result["champion"] is None
    assert "corpus/passages" in done.stderr, "progress goes to standard error"
    assert not NOISE.search(done.stderr)
    (log,) = (tmp_path / "home" / "logs").glob("run-*.log")
    assert result["run_id"] in log.read_text(), "Dagster's own lines are in the log"

    lost = rerankops("run", "--json", "--select", "group:corpus", *on_docs, "--set", "corpus.files.queries=q.jsonl")
    result = one_value(lost)
    assert (lost.returncode, result["exit_code"], result["outcome"]) == (1, 1, "failed")
    assert "corpus.files.queries" in result["failures"]["corpus__read"]
    assert "corpus__read: " in lost.stderr
    assert not NOISE.search(lost.stderr)


def test_a_run_that_was_interrupted_or_killed_is_resumed(
    rerankops: Rerankops, on_docs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", "--select", "group:corpus", *on_docs)

    def stop_while_reading(number: signal.Signals) -> tuple[int, str]:
        with started(arguments, env=environment(tmp_path / "home")) as running:
            until(lambda: any(line.rstrip().endswith("reading files") for line in running.said().splitlines()))
            os.kill(running.pid, number)
            done = running.ended()
        return done.returncode, done.stderr

    assert stop_while_reading(signal.SIGINT) == (
        130,
        "Interrupted. What is finished is kept; the next `rerankops run` resumes there.\n",
    )
    # The interrupted run may have kept its whole reading: there is something new to read.
    write_docs_corpus(tmp_path / "docs", documents=120, left_out=1)
    code, told = stop_while_reading(signal.SIGKILL)
    assert (code, told) == (-signal.SIGKILL, "")
    done = rerankops(*arguments)
    assert done.returncode == 0
    assert len(re.findall(r"run \S+ was killed; it is marked as failed", done.stdout)) == 1
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    with dg.DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == [
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,
            dg.DagsterRunStatus.CANCELED,
        ]
