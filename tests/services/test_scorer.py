"""The scoring process: the same scores, killed, hung and altered, and gone with the service."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from models.errors import ScorerLost
from models.records.database import Database
from models.records.ledger import Ledger
from models.serving.engines import LocalEngines
from models.serving.loaded_bundle import load_release
from models.serving.model_files import ModelFiles
from models.settings import chosen
from services.scorer.supervisor import ScorerProcess, ScorerRestarts
from tests.patience import PATIENCE_S, until
from tests.service_process import fork_service
from tests.services.conftest import AUTHORIZED, Running, service_in
from tests.small_bundle import BUDGET_MS, QUESTION, Small, put_in_service, weights_file

PAIRS = [(QUESTION, text) for text in ("Wash the water filter with soda.", "Mice stay away.", "", "word " * 200)]
BODY = {"model": "champion", "query": QUESTION, "documents": [text for _, text in PAIRS]}


def files_of(small: Small) -> ModelFiles:
    """The models of the small deployment, with engines of ONNX Runtime."""
    bundle = small.first.bundle
    digests = {
        name: entry.sha256
        for name, entry in bundle.manifest.files.items()
        if name.split("/")[0] in ("engines", "compact", "large")
    }
    return ModelFiles(bundle.folder, chosen(small.settings.training.max_tokens), 1, digests)


def is_alive(pid: int) -> bool:
    """Whether a process runs: a zombie that its parent has not heard of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def restarts() -> ScorerRestarts:
    return ScorerRestarts()


@pytest.fixture(scope="module")
def without_engines(small: Small, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """The same models, which PyTorch then runs."""
    files, folder = files_of(small), tmp_path_factory.mktemp("models")
    digests = {name: digest for name, digest in files.digests.items() if not name.startswith("engines/")}
    for name in digests:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(files.folder / name, folder / name)
    return replace(files, folder=folder, digests=digests)


@pytest.fixture(scope="module")
def scorer(small: Small) -> Iterator[ScorerProcess]:
    """A scoring process for the tests that leave it as it is: to start one takes seconds."""
    built = ScorerProcess(files_of(small), PATIENCE_S, ScorerRestarts())
    assert built.scorers
    yield built
    built.close()


@pytest.fixture
def doomed_scorer(small: Small, restarts: ScorerRestarts) -> Iterator[ScorerProcess]:
    built = ScorerProcess(files_of(small), PATIENCE_S, restarts)
    yield built
    built.close()


def pid_of(scorer: ScorerProcess) -> int:
    assert scorer.pid is not None
    return scorer.pid


def assert_same_scores(scorer: ScorerProcess, files: ModelFiles, size: str, tolerance: float) -> None:
    here, there = LocalEngines(files).scorers[size], scorer.scorers[size]
    expected = here.logits_of(here.encode(PAIRS), len(PAIRS))
    result = there.logits_of(there.encode(PAIRS), len(PAIRS))
    assert there.padded == here.padded
    assert result.dtype == expected.dtype
    assert result.tolist() == pytest.approx(expected.tolist(), rel=0, abs=tolerance)


@pytest.mark.parametrize("size", ["compact", "large"])
def test_its_scores_are_those_of_the_models_in_this_process(scorer: ScorerProcess, small: Small, size: str) -> None:
    assert_same_scores(scorer, files_of(small), size, tolerance=0)


def test_so_they_are_where_pytorch_runs_them(without_engines: ModelFiles, restarts: ScorerRestarts) -> None:
    scorer = ScorerProcess(without_engines, PATIENCE_S, restarts)
    for size in ("compact", "large"):
        # PyTorch may use more threads here than there, and so round in another way.
        assert_same_scores(scorer, without_engines, size, tolerance=1e-5)
    scorer.close()


def test_a_killed_process_is_replaced_and_scores_again(doomed_scorer: ScorerProcess, restarts: ScorerRestarts) -> None:
    scorer = doomed_scorer
    compact = scorer.scorers["compact"]
    encoded = compact.encode(PAIRS)
    before, first = compact.logits_of(encoded, len(encoded)), pid_of(scorer)
    os.kill(first, signal.SIGKILL)
    until(lambda: scorer.pid != first)
    if scorer.outage:
        with pytest.raises(ScorerLost):
            compact.logits_of(encoded, len(encoded))
    until(lambda: not scorer.outage)
    assert restarts.count == 1
    assert pid_of(scorer) != first
    assert compact.logits_of(encoded, len(encoded)).tolist() == before.tolist()


def test_a_process_that_hangs_is_replaced(small: Small, restarts: ScorerRestarts) -> None:
    scorer = ScorerProcess(files_of(small), 0.5, restarts)
    compact = scorer.scorers["compact"]
    hung = pid_of(scorer)
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(ScorerLost, match="did not answer"):
        compact.logits_of(compact.encode(PAIRS), len(PAIRS))
    until(lambda: not is_alive(hung))
    until(lambda: not scorer.outage)
    assert pid_of(scorer) != hung
    scorer.close()


def test_altered_weights_are_not_loaded(small: Small, tmp_path: Path, restarts: ScorerRestarts) -> None:
    files = files_of(small)
    for name in files.digests:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.folder / name, tmp_path / name)
    name = weights_file(files.digests, "large")
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    scorer = ScorerProcess(replace(files, folder=tmp_path), PATIENCE_S, restarts)
    with pytest.raises(ScorerLost, match="differs from its digest"):
        _ = scorer.scorers
    scorer.close()


def test_a_failing_model_is_no_lost_process(scorer: ScorerProcess) -> None:
    process = scorer.pid
    with pytest.raises(RuntimeError, match="KeyError"):
        scorer.ask({"model": "middle", "sizes": [1]}, bytes(8))
    assert (scorer.pid, scorer.outage) == (process, "")


def test_close_ends_the_process(small: Small, restarts: ScorerRestarts) -> None:
    scorer = ScorerProcess(files_of(small), PATIENCE_S, restarts)
    assert scorer.scorers
    process = pid_of(scorer)
    scorer.close()
    until(lambda: not is_alive(process))
    assert restarts.count == 0


def test_close_does_not_wait_for_a_process_that_is_not_ready(small: Small, restarts: ScorerRestarts) -> None:
    scorer = ScorerProcess(files_of(small), PATIENCE_S, restarts)
    scorer.close()
    with pytest.raises(ScorerLost):
        _ = scorer.scorers
    assert (scorer.pid, restarts.count) == (None, 0)


def test_callers_get_lean_answers_until_full_tiers_are_back(small: Small, tmp_path: Path, running: Running) -> None:
    expected = running.client.post("/v2/rerank", json=BODY).json()["results"]
    restarts, opened = ScorerRestarts(), []

    def open_engines(files: ModelFiles) -> ScorerProcess:
        opened.append(ScorerProcess(files, PATIENCE_S, restarts))
        return opened[-1]

    with service_in(
        tmp_path, small.settings, partial(load_release, open_engines=open_engines), restarts=restarts
    ) as service:
        put_in_service(service.ledger, small.first, "7")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            full = client.post("/v2/rerank", json=BODY).json()
            assert (full["meta"]["degraded"], full["results"]) == (False, expected)
            (scorer,) = opened
            killed = pid_of(scorer)
            os.kill(killed, signal.SIGKILL)
            until(lambda: scorer.pid != killed)
            lean = client.post("/v2/rerank", json=BODY)
            ready = client.get("/health/ready")
            answer = client.post("/v1/answer", json={"query": QUESTION})
            until(lambda: not scorer.outage)
            back = client.post("/v2/rerank", json=BODY).json()
            metrics = client.get("/metrics").text
    assert lean.status_code == answer.status_code == ready.status_code == 200
    assert lean.json()["meta"]["degraded_reason"].startswith("scorer: ")
    assert set(lean.json()["meta"]["tiers"]) == {"lean"}
    assert (ready.json()["status"], ready.json()["ready"]) == ("lean", True)
    assert "replaced" in ready.json()["outage"]
    assert answer.json()["degraded_reason"].startswith("scorer: ")
    assert (back["meta"]["degraded"], back["results"]) == (False, expected)
    assert "rerankops_scorer_restarts 1.0" in metrics
    assert "rerankops_scorer_up 1.0" in metrics
    assert 'rerankops_degraded_total{route="/v2/rerank",why="scorer"} 1.0' in metrics
    assert not is_alive(pid_of(scorer)) if scorer.pid else True


def test_a_killed_service_leaves_no_process_behind(small: Small, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'rerankops.db'}")
    database.migrate()
    put_in_service(Ledger(database), small.first, "7")
    database.close()
    place = {"STORAGE__ARTIFACTS": small.settings.artifact_root, "TIERS__BUDGET_MS": str(BUDGET_MS)}
    with fork_service(tmp_path, **place) as service:
        headers = {"Authorization": f"Bearer {service.key}"}
        answer = httpx.post(f"{service.url}/v2/rerank", json=BODY, headers=headers, timeout=PATIENCE_S)
        assert answer.status_code == 200
        child = service.scorer_pid
        assert is_alive(child)
        os.kill(service.command.pid, signal.SIGKILL)
        until(lambda: not is_alive(child))
