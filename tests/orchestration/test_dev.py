"""Dagster's web server and daemon on a deployment, as `rerankops dev` starts them: the launchpad, and runs from it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml

from models.settings import ROOT, Settings
from orchestration.web_guard import TOKEN_VARIABLE
from tests.commands import run_command
from tests.docs_corpus import docs_settings, write_docs_corpus
from tests.patience import PATIENCE_S

TOKEN = "the-token-of-a-test"
CORPUS = ["passages", "queries", "judgments", "quarantined_rows", "evaluation_set"]
JOB = {"repositoryName": "__repository__", "repositoryLocationName": "rerankops", "pipelineName": "lifecycle"}
SCHEMA = """query ($job: PipelineSelector!) {
    runConfigSchemaOrError(selector: $job) { ... on RunConfigSchema { rootDefaultYaml } }
}"""
LAUNCH = """mutation ($launch: ExecutionParams!) {
    launchRun(executionParams: $launch) {
        ... on LaunchRunSuccess { run { runId } }
        ... on RunConfigValidationInvalid { errors { message } }
        ... on PythonError { message }
    }
}"""
STATUS = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    write_docs_corpus(tmp_path / "docs", documents=120)
    others = {name: value for name, value in os.environ.items() if not name.startswith(("RERANKOPS_", "DAGSTER_"))}
    settings = docs_settings(tmp_path / "docs")
    variables = {f"RERANKOPS_{key.upper().replace('.', '__')}": value for key, value in settings.items()}
    return (
        others
        | variables
        | {"RERANKOPS_HOME": str(tmp_path / "home"), "RERANKOPS_PRESET": "tiny", TOKEN_VARIABLE: TOKEN}
    )


@pytest.fixture
def port(environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """The port of a web server that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "dev.log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "dev", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        while True:
            assert child.poll() is None, log.read_text()
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/server_info", timeout=5)
                assert answer.status_code == 403, "without the token nothing is answered"
                break
            except httpx.TransportError:
                time.sleep(0.5)
        yield port
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_S) in {0, 130, -signal.SIGINT}, log.read_text()


def ask(port: int, query: str, **variables: Any) -> dict[str, Any]:
    """What the web server says to a query of one field."""
    request = {"query": query, "variables": variables}
    address, key = f"http://127.0.0.1:{port}/graphql", {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(address, json=request, headers=key, timeout=PATIENCE_S).json()
    assert "errors" not in answer, answer
    (value,) = answer["data"].values()
    return value


def made(home: Path, run_id: str) -> dict[str, dict[str, Any]]:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    result = [event.asset_materialization for event in events]
    return {
        item.asset_key.path[-1]: {name: value.value for name, value in item.metadata.items()}
        for item in result
        if item is not None
    }


@pytest.mark.slow
def test_a_run_from_the_launchpad_is_one_of_the_command_line(
    port: int, environment: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shown = yaml.safe_load(ask(port, SCHEMA, job=JOB)["rootDefaultYaml"])
    sections = shown["resources"]["deployment"]["config"]
    assert sections["corpus"]["source"] == "files"
    assert sections["corpus"]["passage_tokens"] == Settings().corpus.passage_tokens

    def launch(**corpus: int) -> dict[str, Any]:
        configuration = {"resources": {"deployment": {"config": {"corpus": corpus}}}}
        selector = {**JOB, "assetSelection": [{"path": ["corpus", name]} for name in CORPUS]}
        return ask(port, LAUNCH, launch={"selector": selector, "runConfigData": configuration})

    (error,) = launch(passage_tokns=64)["errors"]
    assert '"passage_tokns" at path root:resources:deployment:config:corpus' in error["message"]
    run_id = launch(passage_tokens=64, overlap_tokens=8)["run"]["runId"]
    while (status := ask(port, STATUS, run=run_id)["status"]) not in {"SUCCESS", "FAILURE", "CANCELED"}:
        time.sleep(0.5)
    assert status == "SUCCESS"
    from_launchpad = made(home, run_id)
    assert set(from_launchpad) == set(CORPUS)
    assert not any(metadata["reused"] for metadata in from_launchpad.values())

    sets = ("--set", "corpus.passage_tokens=64", "--set", "corpus.overlap_tokens=8")
    done = run_command("run", "--json", "--select", "group:corpus", *sets, env=environment)
    assert done.returncode == 0, done.stderr
    from_command_line = made(home, json.loads(done.stdout)["run_id"])
    assert all(metadata["reused"] for metadata in from_command_line.values())
    uris = [{name: item["dagster/uri"] for name, item in run.items()} for run in (from_launchpad, from_command_line)]
    assert uris[0] == uris[1]
