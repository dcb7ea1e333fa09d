"""Rollbacks, swaps and kills of a served release: `python -m bench.rollbacks [--only FAULT ...]`.

`rerankops rollback` against `rerankops serve` and `mlflow server`, each a process of its own, over the tests' small
deployment: with nothing wrong, with MLflow's server stopped, with its database lost, with the target bundle damaged,
and while the service loads the bad release. Somebody asks the service all the time, so that the seconds go from the
start of the command to the first answer of the release that it restored. Then the service is started again, with the
fault still there. `swap` is a release instead, told to the service and noticed by it; `kills` are SIGKILL for the
scoring process and for the service, which is started again at once. Writes `rollback`, `swap` and `kills` of
docs/benchmarks/faults.json and prints the table of docs/faults.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import TypeAdapter

from bench.folders import FIGURES, ROOT
from bench.load_deployment import Deployment, small_deployment
from bench.results import merge_into
from models.records.database import Database
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from models.release.bundle import Bundle
from models.release.releaser import bundle_versions
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from tests.service_process import STARTED, STARTING, ServiceProcess, free_port, service_environment, start_service
from tests.small_bundle import open_small, weights_file

RESULTS = FIGURES / "faults.json"
SOUND, BAD, DAMAGED = "1", "2", "3"
"""Model versions: the release that a rollback brings back, the one to get rid of, and one with a broken file."""
FAULTS = ("none", "mlflow_away", "mlflow_lost", "target_damaged", "load_under_way")
_WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Else a server starts a dozen processes that run evaluations."""
_PAUSE_S = 0.02
_BEHIND_S = 3.0
"""For so long the service is asked behind the last command."""
_MODEL_NAME = "reranker"
_DEPLOYMENT = TypeAdapter(Deployment)


@dataclass(frozen=True)
class Answer:
    """One answer: when it came (`time.perf_counter`), of which model version, and whether the models made it."""

    at: float
    version: str
    full: bool


@dataclass
class Asker:
    """Asks a service again and again; `answers` are those with status 200."""

    service: ServiceProcess
    answers: list[Answer] = field(default_factory=list)
    refused: int = 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """For as long as the block lasts."""
        ended = threading.Event()
        thread = threading.Thread(target=self._ask, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def first(self, met: Callable[[Answer], bool], since: float) -> float | None:
        """Seconds from `since` to the first answer behind it that meets a condition, None where none does."""
        return next((round(one.at - since, 2) for one in self.answers if one.at >= since and met(one)), None)

    def _ask(self, ended: threading.Event) -> None:
        body = {"model": "champion", "query": "how is it cleaned", "documents": ["with a cloth", "with soda"]}
        with caller(self.service) as client:
            while not ended.is_set():
                with suppress(httpx.TransportError):
                    response = client.post("/v2/rerank", json=body)
                    if response.is_success:
                        meta = response.json()["meta"]
                        answer = Answer(time.perf_counter(), meta["model_version"], not meta["degraded"])
                        self.answers.append(answer)
                    else:
                        self.refused += 1
                ended.wait(_PAUSE_S)


@dataclass(frozen=True)
class Home:
    """A home of the deployment in which nothing was released yet; `given` are its settings."""

    deployment: Deployment
    given: Mapping[str, str]

    @contextmanager
    def served(self, port: int | None = None, until_logged: str = STARTED) -> Iterator[ServiceProcess]:
        """The service, by default loaded and warm."""
        with start_service(self.deployment.home, port=port, until_logged=until_logged, **self.given) as service:
            yield service

    def run(self, service: ServiceProcess, *arguments: str) -> dict[str, Any]:
        """A command of this deployment: its exit code, what it says, when it began, and the seconds to its end."""
        environment = service_environment(self.deployment.home, service.port, self.given)
        began = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "orchestration.cli", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = " ".join((ended.stdout if ended.returncode == 0 else ended.stderr).split())
        return {
            "began": began,
            "exit": ended.returncode,
            "said": said,
            "seconds": round(time.perf_counter() - began, 2),
        }

    def release_id(self, version: str) -> str:
        """The release of a model version."""
        with self._ledger() as ledger:
            return next(release.release_id for release in ledger.history() if release.model_version == version)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        database = Database(f"sqlite:///{self.deployment.home / 'rerankops.db'}")
        database.migrate()
        try:
            yield Ledger(database)
        finally:
            database.close()


class MlflowServer:
    """`mlflow server` over a SQLite database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        arguments = ["server", "--port", str(self.port), "--backend-store-uri", store, "--workers", "1"]
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **_WITHOUT_JOBS},
            )
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).is_success:
                    return
            if self._process.poll() is not None:
                raise SystemExit((self.folder / "mlflow.log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """End it and its workers."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()

    def lose(self) -> None:
        """Start again over an empty database."""
        self.stop()
        for path in self.folder.glob("mlflow.db*"):
            path.unlink()
        self.start()

    def knows(self, bundles: Mapping[str, Artifact]) -> None:
        """Register bundles, in the order of their versions."""
        tracking = Tracking(self.url, None, _MODEL_NAME)
        for version, bundle in sorted(bundles.items()):
            number = tracking.ensure_version(_MODEL_NAME, bundle)
            assert number == version, f"MLflow gave {number} to bundle {version}"


def caller(service: ServiceProcess) -> httpx.Client:
    """A client of a service, with its key."""
    headers = {"Authorization": f"Bearer {service.key}"}
    return httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=60)


def refresh(service: ServiceProcess) -> None:
    """Make the service serve what is current, as a run does once it has released."""
    with caller(service) as client:
        client.post("/v1/release/refresh").raise_for_status()


def roll_back(home: Home, fault: str, server: MlflowServer) -> dict[str, Any]:
    """One rollback with a fault, and a restart behind it."""
    for version in (SOUND, DAMAGED) if fault == "target_damaged" else (SOUND,):
        home.deployment.activate(version)
    if fault != "load_under_way":
        home.deployment.activate(BAD)
    with home.served() as service:
        asker = Asker(service)
        if fault == "mlflow_away":
            server.stop()
        elif fault == "mlflow_lost":
            server.lose()
        with asker.asking():
            time.sleep(0.5)
            if fault == "load_under_way":
                home.deployment.activate(BAD)
                loading = threading.Thread(target=refresh, args=(service,))
                loading.start()
                time.sleep(0.1)
                command = home.run(service, "rollback")
                loading.join()
            else:
                command = home.run(service, "rollback")
            then: dict[str, Any] = {}
            effective = command
            if fault == "target_damaged":
                time.sleep(_BEHIND_S)
                then = effective = home.run(service, "rollback", "--to", home.release_id(SOUND))
            time.sleep(_BEHIND_S)
        began = effective["began"]
        bad = [answer for answer in asker.answers if answer.version == BAD]
        result = {
            "exit": command["exit"],
            "said": command["said"],
            "command_seconds": command["seconds"],
            "served_after": _last(asker, then["began"]) if then else asker.answers[-1].version,
            "effect_seconds": asker.first(lambda answer: answer.version == SOUND, began) if bad else 0.0,
            "refused": asker.refused,
            "bad_answers_behind_effect": _bad_behind_effect(asker, began),
        }
        if then:
            result["then"] = {name: then[name] for name in ("exit", "said")} | {
                "command_seconds": then["seconds"],
                "served_after": asker.answers[-1].version,
            }
    began = time.perf_counter()
    with home.served() as service:
        asker = Asker(service)
        with asker.asking():
            while not asker.answers:
                time.sleep(_PAUSE_S)
        result["after_restart"] = {
            "served": asker.answers[0].version,
            "first_answer_seconds": round(asker.answers[0].at - began, 2),
        }
    print(fault, json.dumps(result, indent=1), flush=True)
    return result


def swap(home: Home) -> dict[str, float | None]:
    """Seconds to the first answer of a release that the service is told of, and of one that it notices by itself."""
    home.deployment.activate(SOUND)
    seconds: dict[str, float | None] = {}
    with home.served() as service:
        asker = Asker(service)
        with asker.asking():
            for name, version in (("told_seconds", BAD), ("noticed_seconds", SOUND)):
                time.sleep(_BEHIND_S)
                began = time.perf_counter()
                home.deployment.activate(version)
                if name == "told_seconds":
                    refresh(service)
                while asker.first(lambda answer, version=version: answer.version == version, began) is None:
                    time.sleep(_PAUSE_S)
                seconds[name] = asker.first(lambda answer, version=version: answer.version == version, began)
        assert not asker.refused, f"{asker.refused} requests failed"
    print("swap", seconds, flush=True)
    return seconds


def kill(home: Home) -> dict[str, Any]:
    """Seconds to the first answer, of any kind and of the models, behind the SIGKILL of either process."""
    home.deployment.activate(SOUND)
    with home.served() as service:
        asker = Asker(service)
        with asker.asking():
            time.sleep(1)
            os.kill(service.scorer_pid, signal.SIGKILL)
            scorer_killed = time.perf_counter()
            while not _full_again(asker, scorer_killed):
                time.sleep(_PAUSE_S)
        scorer = {
            "first_answer": asker.first(lambda _: True, scorer_killed),
            "first_full_answer": _full_again(asker, scorer_killed),
            "refused": asker.refused,
        }
        asker = Asker(service)
        with asker.asking():
            service.process.kill()
            killed = time.perf_counter()
            service.process.wait()
            with home.served(service.port, STARTING):
                while asker.first(lambda answer: answer.full, killed) is None:
                    time.sleep(_PAUSE_S)
    first = {"first_answer": asker.first(lambda _: True, killed)}
    kills = {"scorer": scorer, "service": first | {"first_full_answer": asker.first(lambda one: one.full, killed)}}
    print("kills", kills, flush=True)
    return kills


def table(rollbacks: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of docs/faults.md."""
    rows = [
        "| fault | exit code | serves | s to the effect | s of the command | after a restart, s to its first answer |"
    ]
    rows.append("|---|---|---|---|---|---|")
    for fault, result in rollbacks.items():
        restart = result["after_restart"]
        rows.append(
            f"| {fault} | {result['exit']} | {result['served_after']} | {result['effect_seconds']} | "
            f"{result['command_seconds']} | {restart['served']}, {restart['first_answer_seconds']} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Build, break, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*FAULTS, "swap", "kills"], default=[*FAULTS, "swap", "kills"])
    parser.add_argument("--bundles", type=Path, help="where the bundles are, or are made and kept for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollbacks-") as work:
        deployment = _three_bundles(options.bundles or Path(work))
        for name in options.only:
            folder = Path(work) / name
            folder.mkdir()
            given = {
                "STORAGE__ARTIFACTS": deployment.artifacts,
                "STORAGE__MODEL_NAME": _MODEL_NAME,
                "CACHE__MAX_MB": "0",
            }
            home = Home(replace(deployment, home=folder), given)
            if name in ("swap", "kills"):
                measured = {name: swap(home) if name == "swap" else kill(home)}
            else:
                measured = {"rollback": {name: _with_mlflow(home, name)}}
            merge_into(RESULTS, {**measured, "rollback_conditions": _conditions()})
    print(table(json.loads(RESULTS.read_text())["rollback"]))


def _conditions() -> dict[str, Any]:
    date = datetime.now(UTC).date().isoformat()
    return {"date": date, "deployment": "small", "cores": len(os.sched_getaffinity(0))}


def _with_mlflow(home: Home, fault: str) -> dict[str, Any]:
    server = MlflowServer(home.deployment.home)
    server.start()
    try:
        server.knows(_bundles(home.deployment))
        uri = {"STORAGE__MLFLOW_URI": server.url}
        return roll_back(Home(home.deployment, {**home.given, **uri}), fault, server)
    finally:
        server.stop()


def _three_bundles(folder: Path) -> Deployment:
    """The small deployment with a third bundle, which ranks as the first does and has a broken file."""
    if (kept := folder / "deployment.json").exists():
        return _DEPLOYMENT.validate_json(kept.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    deployment = small_deployment(folder)
    damaged = open_small(folder / "small").alike(golden_queries=3).bundle
    versions = bundle_versions(damaged, DAMAGED)
    large = damaged.path(weights_file(damaged.manifest.files, Bundle.open(damaged).calibration.models[-1].name))
    content = bytearray(large.read_bytes())
    content[len(content) // 2] ^= 1
    large.unlink()  # The other bundles have links to it.
    large.write_bytes(content)
    deployment = replace(deployment, releases={**deployment.releases, DAMAGED: versions})
    kept.write_bytes(_DEPLOYMENT.dump_json(deployment))
    return deployment


def _bundles(deployment: Deployment) -> dict[str, Artifact]:
    store = ArtifactStore(deployment.artifacts, deployment.home / "cache")
    return {
        version: store.open(RELEASE_CANDIDATE, facts.bundle_version) for version, facts in deployment.releases.items()
    }


def _full_again(asker: Asker, killed: float) -> float | None:
    """Seconds from the loss of the models to the first answer by them behind one without them."""
    lean = next((answer.at for answer in asker.answers if answer.at > killed and not answer.full), None)
    again = None if lean is None else asker.first(lambda answer: answer.full, lean)
    return None if lean is None or again is None else round(lean + again - killed, 2)


def _last(asker: Asker, before: float) -> str:
    """The version of the last answer before a moment."""
    return [answer.version for answer in asker.answers if answer.at < before][-1]


def _bad_behind_effect(asker: Asker, began: float) -> int:
    """Answers of the bad release behind the first of the one that was restored."""
    versions = [answer.version for answer in asker.answers if answer.at >= began]
    return versions[versions.index(SOUND) :].count(BAD) if SOUND in versions else versions.count(BAD)


if __name__ == "__main__":
    main()
