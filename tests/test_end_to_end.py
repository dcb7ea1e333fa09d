"""The whole life of a reranker, through the command line and over HTTP: released, served, reused, refused, taken back.

One deployment goes through all of it, so the stages are one test. The corpus is a cut of the documentation of installed
packages, too small to learn from, so the gate asks for no gain: how well a reranker ranks is tested elsewhere.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from models.settings import ROOT
from tests.commands import clean_environment, run_command
from tests.docs_corpus import docs_settings, write_docs_corpus
from tests.patience import PATIENCE_S

DOCUMENTS = 130
SYSTEMS = ("bm25", "dense", "hybrid", "large", "tiered")
SETTINGS: dict[str, Any] = {
    "preset": "tiny",
    "encoder.max_tokens": 64,
    "training.max_tokens": 48,
    "training.max_queries": 40,
    "training.frozen_layers": 1,
    "training.large_pairs": 48,
    "evaluation.candidates": 6,
    "evaluation.max_test_queries": 16,
    "evaluation.max_dev_queries": 12,
    "evaluation.resamples": 1000,
    # A busy machine shall not decide what is released.
    "gate.max_champion_loss": 1.0,
    "objectives.p95_ms": 60_000,
    "objectives.p99_ms": 60_000,
    "tiers.budget_ms": 60_000,
    "tiers.large_candidates": 3,
    "serving.candidates": 6,
    "serving.golden_queries": 3,
    # The service follows because it is told to, not because it looks.
    "serving.poll_seconds": 3600,
}
QUESTION = "Sends a DELETE request."
TEXTS = [
    "Send a request that deletes a resource.",
    "Check the columns of a data frame.",
    "Declare an option of a command.",
]


@dataclass(frozen=True)
class Deployment:
    """A home, its settings in the environment, and the address of its service."""

    home: Path
    environment: dict[str, str]
    address: str

    def rerankops(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return run_command(*arguments, env=self.environment)

    def told(self, code: int, *arguments: str) -> dict[str, Any]:
        """Run a command that is to end with `code`, and return the JSON value that it prints."""
        done = self.rerankops(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def scores(self) -> list[float]:
        """What the service says of TEXTS, in their order."""
        key = (self.home / "api_key").read_text().strip()
        answer = httpx.post(
            f"{self.address}/v2/rerank",
            json={"model": "reranker", "query": QUESTION, "documents": TEXTS},
            headers={"Authorization": f"Bearer {key}"},
            timeout=PATIENCE_S,
        )
        assert answer.status_code == 200, answer.text
        assert not answer.json()["meta"]["degraded"]
        return [item["relevance_score"] for item in sorted(answer.json()["results"], key=lambda item: item["index"])]

    def served(self) -> str | None:
        """The release that the service serves."""
        response = httpx.get(f"{self.address}/health", timeout=PATIENCE_S).json()["served"]
        return None if response is None else response["release_id"]

    def made(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Metadata of the assets that a run materialized, by name."""
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        result = [event.asset_materialization for event in events]
        return {
            item.asset_key.to_user_string(): {name: value.value for name, value in item.metadata.items()}
            for item in result
            if item is not None
        }


def versions(home: Path) -> dict[str, str]:
    """Data version of the current artifact of each asset."""
    current = home / "artifacts" / "current"
    return {
        path.relative_to(current).with_suffix("").as_posix(): json.loads(path.read_bytes())["data_version"]
        for path in current.rglob("*.json")
    }


def made_anew(built: dict[str, dict[str, Any]]) -> set[str]:
    """Assets with an artifact that was not reused."""
    return {name for name, metadata in built.items() if metadata.get("reused") is False}


@contextmanager
def service(deployment: Deployment) -> Iterator[None]:
    """`rerankops serve`, from its first answer to its end."""
    with (deployment.home / "serve.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "serve"],
            cwd=ROOT,
            env=deployment.environment,
            stdout=log,
            stderr=log,
        )
        try:
            while True:
                assert child.poll() is None, (deployment.home / "serve.log").read_text()
                try:
                    httpx.get(f"{deployment.address}/health", timeout=5)
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            yield
        finally:
            child.terminate()
            child.wait(PATIENCE_S)


@pytest.fixture
def deployment(tmp_path: Path, docs_encoder: Path) -> Deployment:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {**SETTINGS, **docs_settings(tmp_path / "docs"), "serving.port": port}
    settings |= {"encoder.model": docs_encoder, "training.base_model": docs_encoder}
    variables = {f"RERANKOPS_{key.upper().replace('.', '__')}": str(value) for key, value in settings.items()}
    home = tmp_path / "home"
    home.mkdir()
    return Deployment(home, clean_environment(**variables, RERANKOPS_HOME=str(home)), f"http://127.0.0.1:{port}")


@pytest.mark.slow
def test_the_whole_life_of_a_reranker(deployment: Deployment, tmp_path: Path) -> None:
    write_docs_corpus(tmp_path / "docs", DOCUMENTS, left_out=1)
    with service(deployment):
        assert deployment.served() is None
        first = release_the_first(deployment)
        first_scores = deployment.scores()
        answer_with_citations(deployment)
        reuse_everything(deployment, first)
        write_docs_corpus(tmp_path / "docs", DOCUMENTS)
        second = release_what_depends_on_a_new_document(deployment, first)
        assert deployment.scores() != first_scores
        refuse_and_keep_serving(deployment, second)
        take_back(deployment, first)
        assert deployment.scores() == pytest.approx(first_scores, abs=1e-6)


def release_the_first(deployment: Deployment) -> dict[str, Any]:
    """The first run releases, and its last asset makes the running service serve the release."""
    run = deployment.told(0, "run")
    assert (run["outcome"], run["gate"]["decision"], run["failures"]) == ("released", "released", {})
    status = deployment.told(0, "status")
    champion = status["champion"]
    assert champion["version"] == "1"
    assert champion["corpus_version"] == versions(deployment.home)["corpus/passages"]
    assert len(champion["index_version"]) == 24
    assert status["gate"]["decision"] == "released"
    for system in SYSTEMS:
        assert 0 < status["evaluation"][system]["nDCG@10"] <= 1
    assert deployment.served() == champion["release_id"]
    scoring = deployment.made(run["run_id"])["serving/online_scoring"]
    assert (scoring["served"], scoring["release_id"]) == (True, champion["release_id"])
    assert scoring["golden_queries"] == SETTINGS["serving.golden_queries"]
    return champion


def answer_with_citations(deployment: Deployment) -> None:
    """A question is answered with sentences of the passages that are cited."""
    answer = deployment.told(0, "query", QUESTION)
    texts = {passage["passage_id"]: passage["text"] for passage in answer["passages"]}
    assert answer["answer"]
    assert answer["citations"]
    assert {citation["passage_id"] for citation in answer["citations"]} <= set(texts)
    shown = deployment.rerankops("query", QUESTION).stdout
    assert answer["answer"].split()[0] in shown
    assert f"[1] {answer['citations'][0]['title'][:40]}" in shown


def reuse_everything(deployment: Deployment, champion: dict[str, Any]) -> None:
    """A run with nothing new makes nothing, and says that what it has is the champion."""
    before = versions(deployment.home)
    run = deployment.told(0, "run")
    assert (run["outcome"], run["gate"]["decision"]) == ("current", "current")
    assert run["champion"] == champion
    # There is a champion now: what it scored is looked up, and the gate looks again.
    assert made_anew(deployment.made(run["run_id"])) == {"evaluation/champion_evaluation", "release/gate_decision"}
    changed = {name for name, version in versions(deployment.home).items() if version != before[name]}
    assert changed == {"evaluation/champion_evaluation", "release/gate_decision"}


def release_what_depends_on_a_new_document(deployment: Deployment, first: dict[str, Any]) -> dict[str, Any]:
    """One more document makes new indexes, models and a new release; what does not hang on it stays."""
    before = versions(deployment.home)
    run = deployment.told(0, "run")
    assert run["outcome"] == "released"
    after = versions(deployment.home)
    new = {name for name, version in after.items() if version != before[name]}
    assert {"corpus/passages", "index/dense_index", "index/lexical_index", "release/release_candidate"} <= new
    assert "corpus/quarantined_rows" not in new
    champion = run["champion"]
    assert champion["version"] == "2"
    assert champion["index_version"] != first["index_version"]
    assert deployment.served() == champion["release_id"]
    judged = deployment.made(run["run_id"])["evaluation/champion_evaluation"]["champion"]
    assert judged == first["bundle_version"], "the champion of then answered the queries by its own index"
    return champion


def refuse_and_keep_serving(deployment: Deployment, champion: dict[str, Any]) -> None:
    """A candidate that misses the gate is not served, also when the release is asked for by hand."""
    spoilt = ("--set", "serving.golden_queries=2", "--set", "gate.min_gain=0.99")
    run = deployment.told(3, "run", *spoilt)
    assert (run["outcome"], run["gate"]["decision"]) == ("refused", "refused")
    assert "0.99" in run["failures"]["release/gate_decision"]
    assert run["champion"] == champion
    by_hand = deployment.told(3, "run", "--select", "release/release", "--set", "serving.golden_queries=2")
    assert "The recorded decision is a refusal" in by_hand["failures"]["release__release"]
    assert deployment.told(0, "status")["champion"] == champion
    assert deployment.served() == champion["release_id"]


def take_back(deployment: Deployment, first: dict[str, Any]) -> None:
    """A rollback restores the whole bundle of the release before, and the service serves it."""
    restored = deployment.told(0, "rollback", "--reason", "the test wants it back")
    assert restored["served"]
    assert (restored["bundle_version"], restored["version"]) == (first["bundle_version"], first["version"])
    assert deployment.served() == restored["release_id"]
    status = deployment.told(0, "status")
    assert {name: status["champion"][name] for name in ("index_version", "corpus_version", "action")} == {
        "index_version": first["index_version"],
        "corpus_version": first["corpus_version"],
        "action": "rollback",
    }
    assert [incident["evidence"]["reason"] for incident in status["incidents"]] == ["the test wants it back"]
