"""SIGKILL at random moments: `python -m bench.kill [kills [seed [folder [homes]]]]`, 20 kills by default.

The whole lifecycle runs on a small corpus: twice undisturbed, which must agree in every data version, then in homes
that are killed four times each. A kill picks a stage (each once, in random order, before any twice) and a random moment
within the time that the stage took undisturbed, and sends SIGKILL to the process group of the run. The next run
resumes, and is killed again in a later stage, until the home's kills are used up; the last run ends by itself. Then
every asset must have the data version of the undisturbed run, every artifact the digests of its manifest, and nothing
half-written may be left: `problems` says what is looked at. Writes docs/benchmarks/kill.json. In a folder of your own
it goes on where it stopped, at most so many homes at a time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from bench.folders import FIGURES, ROOT
from models.records.database import Database
from models.records.ledger import Ledger
from models.records.mlflow_registry import CHAMPION, Tracking
from models.settings import load_settings
from models.store.artifacts import MANIFEST, ArtifactStore
from models.store.durable_files import write_atomically
from tests.docs_corpus import docs_settings, write_docs_corpus
from tests.service_process import free_port
from tests.test_end_to_end import DOCUMENTS, SETTINGS

RESULTS = FIGURES / "kill.json"
START = "before the first stage"
_KILLS_PER_HOME = 4
_POLL_S = 0.02
_TIMEOUT_S = 3600
_GATE = "release/gate_decision"
"""Holds the id of its row in the ledger, which is random: verdict and candidate are compared instead."""
_MEASURED = "evaluation/latency_profile"
"""Holds measured times: its step is compared instead, the digest of its code, inputs and settings."""


@dataclass(frozen=True)
class Kill:
    """One kill: where it was aimed at, what was running, and how long the run had lasted."""

    aimed_at: str
    offset_s: float
    running: str
    after_s: float


def main() -> None:
    """Measure, check, print and write."""
    arguments = [int(text) for text in (*sys.argv[1:3], *sys.argv[4:5])]
    kills, seed, at_most = [*arguments, *(20, 0, 1_000)[len(arguments) :]]
    with tempfile.TemporaryDirectory(prefix="kill-") as work:
        folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(work)
        write_docs_corpus(folder / "docs", DOCUMENTS)
        for key, value in {**SETTINGS, **docs_settings(folder / "docs")}.items():
            os.environ[f"RERANKOPS_{key.upper().replace('.', '__')}"] = str(value)
        # Where nothing listens: a service of another deployment would refuse the key.
        os.environ["RERANKOPS_SERVING__PORT"] = str(free_port())
        state = folder / "state.json"
        progress = (
            json.loads(state.read_bytes()) if state.exists() else {"seed": seed, **undisturbed(folder), "homes": []}
        )
        write_atomically(state, json.dumps(progress).encode())
        aims = [*plan(progress["stages"], kills, random.Random(seed))]
        for number in range(len(progress["homes"]), min(len(aims), len(progress["homes"]) + at_most)):
            progress["homes"].append(torment(folder / f"killed-{number}", aims[number], progress))
            write_atomically(state, json.dumps(progress).encode())
        if len(progress["homes"]) == len(aims):
            conclude(progress)


def undisturbed(folder: Path) -> dict[str, Any]:
    """Two whole runs, and one more in the first home: a run beside a champion looks up what that scored."""
    homes = [folder / "undisturbed-1", folder / "undisturbed-2"]
    begun = time.time()
    seconds = [finish(home) for home in homes]
    seconds_of_stages = stages(homes[0], begun)
    wanted, again = (versions(home) for home in homes)
    if again != wanted:
        raise SystemExit(f"two undisturbed runs differ: {wanted.items() ^ again.items()}")
    finish(homes[0])
    print(f"undisturbed: {seconds} s, {len(wanted)} assets alike", flush=True)
    later = versions(homes[0])
    return {"undisturbed_seconds": seconds, "stages": seconds_of_stages, "wanted": wanted, "wanted_later": later}


def plan(timeline: dict[str, float], kills: int, chance: random.Random) -> Iterator[list[tuple[str, float]]]:
    """The stages in which each home is killed, in the order of the run, each with the seconds from its beginning."""
    order = list(timeline)
    drawn: list[str] = []
    while len(drawn) < kills:
        drawn += chance.sample(order, len(order))
    for start in range(0, kills, _KILLS_PER_HOME):
        of_home = sorted(drawn[start : min(start + _KILLS_PER_HOME, kills)], key=order.index)
        yield [(stage, chance.uniform(0, timeline[stage])) for stage in of_home]


def torment(home: Path, aims: list[tuple[str, float]], progress: dict[str, Any]) -> dict[str, Any]:
    """Kill the runs of a home one after the other, let the last one end, and look at what there is."""
    kills = []
    for stage, offset_s in aims:
        kills.append(kill_in(home, stage, offset_s))
        print(f"{home.name}: killed in {kills[-1].running} after {kills[-1].after_s:.1f} s", flush=True)
    expected = progress["wanted_later"] if released(home) else progress["wanted"]
    started = time.time()
    seconds = finish(home)
    wrong = problems(home, started)
    got = versions(home)
    for name in sorted(expected.keys() | got.keys()):
        if got.get(name) != expected.get(name):
            wrong.append(f"{name} is {got.get(name)}, undisturbed {expected.get(name)}")
    print(f"{home.name}: resumed to the end in {seconds:.1f} s, {wrong or 'as undisturbed'}", flush=True)
    return {"kills": [asdict(kill) for kill in kills], "last_run_seconds": seconds, "problems": wrong}


def conclude(progress: dict[str, Any]) -> None:
    """Write the results and exit with 1 where there are problems."""
    kills = [kill for home in progress["homes"] for kill in home["kills"]]
    wrong = [problem for home in progress["homes"] for problem in home["problems"]]
    told = {name: progress[name] for name in ("seed", "undisturbed_seconds", "homes")} | {
        "assets": len(progress["wanted"])
    }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(f"{len(kills)} kills in {len({kill['running'] for kill in kills})} stages, {len(wrong)} problems")
    sys.exit(1 if wrong else 0)


def start(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`rerankops run` with these arguments, in a process group of its own."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "told.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "run", *arguments],
            cwd=ROOT,
            env={**os.environ, "RERANKOPS_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(home: Path, *arguments: str) -> float:
    """Run to the end, which must be a release or what the arguments select; returns the seconds."""
    started = time.perf_counter()
    process = start(home, *arguments)
    try:
        code = process.wait(_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if code != 0:
        raise SystemExit(f"the run in {home} ended with {code}:\n{(home / 'told.log').read_text()[-3000:]}")
    return round(time.perf_counter() - started, 2)


def kill_in(home: Path, stage: str, offset_s: float) -> Kill:
    """Start a run and kill it and its children `offset_s` after `stage` began, or after its start.

    A run that ends earlier, as it has less to do than the undisturbed one, is repeated with half the offset.
    """
    before = run_ids(home)
    begun = time.perf_counter()
    process = start(home)
    while stage != START and process.poll() is None and stage not in started_stages(home, before):
        time.sleep(_POLL_S)
    time.sleep(offset_s)
    after = time.perf_counter() - begun
    if process.poll() is not None:
        return kill_in(home, stage, offset_s / 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return Kill(stage, round(offset_s, 3), running(home, before), round(after, 2))


def events(home: Path, run_id: str) -> Iterator[tuple[str, str, float]]:
    """Kind, step and time of the events of a run, from Dagster's own file for it."""
    path = home / "dagster" / "history" / "runs" / f"{run_id}.db"
    if not path.exists():
        return
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        seconds = "(julianday(timestamp) - 2440587.5) * 86400"
        rows = f"SELECT dagster_event_type, step_key, {seconds} FROM event_logs ORDER BY id"
        yield from connection.execute(rows).fetchall()
    except sqlite3.OperationalError:  # the table is not there yet
        return
    finally:
        connection.close()


def run_ids(home: Path) -> set[str]:
    """The runs that Dagster knows."""
    return {path.stem for path in (home / "dagster" / "history" / "runs").glob("*-*-*-*-*.db")}


def started_stages(home: Path, before: set[str]) -> set[str]:
    """Stages that the newest run has begun."""
    return {step for run_id in run_ids(home) - before for kind, step, _ in events(home, run_id) if kind == "STEP_START"}


def running(home: Path, before: set[str]) -> str:
    """The stage that a killed run was in, or between which two it was."""
    known = run_ids(home) - before
    if not known:
        return START
    last, open_step = "", ""
    for kind, step, _ in events(home, known.pop()):
        if kind == "STEP_START":
            open_step = step
        elif kind in ("STEP_SUCCESS", "STEP_FAILURE"):
            last, open_step = step, ""
    return open_step or (f"after {last}" if last else START)


def stages(home: Path, started: float) -> dict[str, float]:
    """Seconds of each stage of the only run, in order, and of what comes before the first."""
    (run_id,) = run_ids(home)
    begun: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for kind, step, at in events(home, run_id):
        if kind == "STEP_START":
            seconds.setdefault(START, round(at - started, 3))
            begun[step] = at
        elif kind == "STEP_SUCCESS":
            seconds[step] = round(at - begun[step], 3)
    return seconds


def released(home: Path) -> bool:
    """Whether a run that was killed has released already."""
    if not (home / "rerankops.db").exists():
        return False
    database = Database(f"sqlite:///{home / 'rerankops.db'}")
    database.migrate()
    try:
        return Ledger(database).current() is not None
    finally:
        database.close()


def versions(home: Path) -> dict[str, str]:
    """Data version of the current artifact of each asset, and what stands for it where chance is in it."""
    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    versions_of = {}
    for path in sorted((home / "artifacts" / "current").rglob("*.json")):
        name = path.relative_to(home / "artifacts" / "current").with_suffix("").as_posix()
        group, noun, *partition = name.split("/")
        artifact = store.require(f"{group}/{noun}", *partition)
        versions_of[name] = artifact.data_version
        if name == _MEASURED:
            versions_of[name] = artifact.manifest.step
        if name == _GATE:
            decision = artifact.read_json("decision.json")
            versions_of[name] = f"{decision['verdict']} {decision['candidate']}"
    return versions_of


def problems(home: Path, resumed: float) -> list[str]:
    """What a kill has left that it should not have.

    Looked at: artifacts that differ from their manifests, or have none; pointers and steps without content; temporary
    files older than the last run; the ledger's pending releases, its champion and MLflow's; runs that Dagster takes for
    alive, pool slots that are taken, locks of runs; SQLite's own check of its files.
    """
    root = home / "artifacts"
    store = ArtifactStore(str(root), home / "cache")
    wrong = []
    for folder in root.glob("objects/*/*/*"):
        if not (folder / MANIFEST).is_file():
            wrong.append(f"{folder} has no manifest")
            continue
        artifact = store.open(folder.parent.relative_to(root / "objects").as_posix(), folder.name)
        artifact.verify()
        extra = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        if extra != {MANIFEST, *artifact.manifest.files}:
            wrong.append(f"{folder} has other files than its manifest")
    wrong += [f"{path} is left" for path in (root / "tmp").glob("*/*")]
    wrong += [f"{path} is left" for path in home.rglob(".*") if path.is_file() and path.stat().st_mtime < resumed]
    os.environ.update({"RERANKOPS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")})
    settings = load_settings()
    database = Database(settings.database_url)
    ledger = Ledger(database)
    active = [release for release in ledger.history() if release.state == "active"]
    if ledger.pending() or len(active) != 1:
        wrong.append(f"the ledger has {len(ledger.pending())} pending and {len(active)} active releases")
    elif Tracking.of(settings).alias(CHAMPION) != active[0].model_version:
        wrong.append("MLflow's champion is not the ledger's")
    elif active[0].bundle_version != store.require("release/release_candidate").data_version:
        wrong.append("the champion is not the bundle that was made")
    database.close()
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs():
            if not run.is_finished:
                wrong.append(f"run {run.run_id} is {run.status.value}")
        if slots := instance.event_log_storage.get_concurrency_run_ids():
            wrong.append(f"pool slots are held by {slots}")
    wrong += [f"{path} is left" for path in (home / "dagster" / "running").iterdir()]
    for path in [home / "rerankops.db", home / "mlflow" / "mlflow.db"]:
        with sqlite3.connect(path) as connection:
            if (said := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                wrong.append(f"{path}: {said}")
    return wrong


if __name__ == "__main__":
    main()
