"""No answered decision is lost: `python -m bench.decisions [kills]`, 20 kills by default.

The service's application (routes, decision writer, database), over a bundle that keeps the given order, answers callers
while faults strike: SIGKILL at random moments, a locked database and then SIGKILL, a full disk and then a stop. On
SQLite and on PostgreSQL. Every id that a caller got is then looked up after the next start. Writes its part of
docs/benchmarks/faults.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import create_engine, text

from bench.folders import FIGURES, ROOT
from models.measures.latency import summarize
from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.records.decisions import get
from models.records.ledger import Ledger
from models.store.durable_files import write_atomically
from tests.databases import running_postgresql
from tests.releases import release_bundle

RESULTS = FIGURES / "faults.json"
_CALLERS = 8
_BODY = {"model": "champion", "query": "q", "documents": [f"document {number}" for number in range(100)]}
_KEY = "rk_of-this-benchmark"
SERVE = """
import sys
import uvicorn
from pathlib import Path
from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.records.ledger import Ledger
from models.settings import Settings
from services.app import create_app
from tests.services.scripted_bundle import Loader
url, spool, port, key = sys.argv[1:]
database = Database(url)
with DecisionWriter(database, Path(spool)) as writer:
    app = create_app(
        Settings(), ledger=Ledger(database), load=Loader(), writer=writer, database=database, key=key
    )
    uvicorn.run(app, port=int(port), log_level="error")
"""


class Faults:
    """One deployment that is tormented; `answered` are the ids that callers got, `ms` the times of their answers."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.spool = folder, url, folder / "spool" / "decisions.jsonl"
        self.answered: list[str] = []
        self.unrecorded = 0
        self.ms: list[float] = []
        database = Database(url)
        database.migrate()
        release_bundle(Ledger(database), "b1")
        database.close()

    @contextmanager
    def served(self, seconds: float, end: int) -> Iterator[None]:
        """A service under load: the block runs meanwhile, the signal `end` comes `seconds` after its beginning."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        arguments = [sys.executable, "-c", SERVE, self.url, str(self.spool), str(port), _KEY]
        log = (self.folder / "log").open("ab")
        service = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log)
        try:
            self._await(port, service)
            callers = [threading.Thread(target=self._call, args=(port,)) for _ in range(_CALLERS)]
            for caller in callers:
                caller.start()
            started = time.monotonic()
            yield
            time.sleep(max(0.0, started + seconds - time.monotonic()))
            service.send_signal(end)
            for caller in callers:
                caller.join()
            service.wait()
        finally:
            service.kill()
            log.close()

    def lost(self) -> int:
        """Ids of answers that are not in the database once a writer has replayed the spool."""
        database = Database(self.url)
        with DecisionWriter(database, self.spool) as writer:
            until = time.monotonic() + 120
            while writer.spooled and time.monotonic() < until:
                time.sleep(0.1)
        missing = sum(get(database, decision_id) is None for decision_id in self.answered)
        database.close()
        return missing

    def _await(self, port: int, service: subprocess.Popen[bytes]) -> None:
        while service.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise SystemExit((self.folder / "log").read_text()[-2000:])

    def _call(self, port: int) -> None:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {_KEY}"},
            trust_env=False,
            timeout=60,
        ) as client:
            while True:
                began = time.perf_counter()
                try:
                    response = client.post("/v2/rerank", json=_BODY)
                except httpx.TransportError:
                    return
                if response.status_code == 200 and (decision_id := response.json().get("id")):
                    self.answered.append(decision_id)
                    self.ms.append(1000 * (time.perf_counter() - began))
                elif response.status_code == 200:
                    self.unrecorded += 1


@contextmanager
def locked(url: str) -> Iterator[None]:
    """The table of decisions takes no row for as long as the block lasts."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE"))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        connection.rollback()
    engine.dispose()


@contextmanager
def full_disk(spool: Path) -> Iterator[None]:
    """The spool's file is on a device that is full."""
    aside = spool.with_name("aside")
    spool.parent.mkdir(parents=True, exist_ok=True)
    if spool.exists():
        os.rename(spool, aside)
    spool.symlink_to("/dev/full")
    yield
    spool.unlink(missing_ok=True)
    if aside.exists():
        os.rename(aside, spool)


def torment(folder: Path, url: str, kills: int, chance: random.Random) -> dict[str, dict[str, float]]:
    """Answered and lost decisions by fault."""
    folder.mkdir()
    results = {}
    for fault in ("kill", "lock", "full_disk"):
        (folder / fault).mkdir()
        faults = Faults(folder / fault, url)
        if fault == "kill":
            for _ in range(kills):
                with faults.served(chance.uniform(0.3, 1.5), signal.SIGKILL):
                    pass
        elif fault == "lock":
            with faults.served(10, signal.SIGKILL), locked(url):
                time.sleep(10)
        else:
            with faults.served(4, signal.SIGTERM):
                time.sleep(1)
                with full_disk(faults.spool), locked(url):
                    time.sleep(3)
        told = summarize(faults.ms)
        results[fault] = {
            "answered": len(faults.answered),
            "lost": faults.lost(),
            "unrecorded_without_id": faults.unrecorded,
            "p95_ms": round(told.p95_ms, 1),
        }
        print(folder.name, fault, results[fault], flush=True)
    return results


def main() -> None:
    """Torment both databases, print and write."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    decisions = {}
    with tempfile.TemporaryDirectory(prefix="decisions-") as work, running_postgresql() as server:
        decisions["sqlite"] = torment(Path(work) / "sqlite", f"sqlite:///{work}/records.db", kills, random.Random(0))
        url = server.replace("postgresql://", "postgresql+psycopg://")
        decisions["postgresql"] = torment(Path(work) / "postgresql", url, kills, random.Random(1))
    figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    every = [result for of_database in decisions.values() for result in of_database.values()]
    figures["decisions"] = {
        "answered": sum(result["answered"] for result in every),
        "lost": sum(result["lost"] for result in every),
        "kills": 2 * kills,
        "by_fault": decisions,
    }
    write_atomically(RESULTS, (json.dumps(figures, indent=1) + "\n").encode())
    sys.exit(1 if figures["decisions"]["lost"] else 0)


if __name__ == "__main__":
    main()
