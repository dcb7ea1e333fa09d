"""One running app over the small deployment for all tests of the HTTP interface, called in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.records.ledger import Ledger, Release
from models.serving.loaded_bundle import load_release
from models.serving.score_cache import MemoryCache
from models.settings import Settings
from services.app import create_app
from services.release_watcher import ReleaseWatcher
from services.telemetry import Telemetry
from tests.services.scripted_bundle import QUEUE_MS, RESERVE_MS, WORKERS, Loader
from tests.small_bundle import Small, put_in_service, small_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from services.scorer.supervisor import ScorerRestarts
    from services.served_release import LoadRelease

KEY = "rk_the-key-of-the-tests"
PROBE_KEY = "rk_what-only-the-deployment-has"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class Service:
    """An app with the parts behind it."""

    app: FastAPI
    settings: Settings
    ledger: Ledger
    database: Database
    writer: DecisionWriter


@contextmanager
def service_in(
    folder: Path,
    settings: Settings,
    load: LoadRelease = load_release,
    cache: MemoryCache | None = None,
    restarts: ScorerRestarts | None = None,
    *,
    load_in_background: bool = False,
) -> Iterator[Service]:
    """An app with a new database in `folder`; not started."""
    database = Database(f"sqlite:///{folder / 'records' / 'records.db'}")
    database.migrate()
    try:
        with DecisionWriter(database, folder / "spool" / "decisions.jsonl", flush_s=0.01) as writer:
            ledger = Ledger(database)
            app = create_app(
                settings,
                ledger=ledger,
                load=load,
                writer=writer,
                database=database,
                key=KEY,
                cache=cache,
                restarts=restarts,
                probe_key=PROBE_KEY,
                load_in_background=load_in_background,
            )
            yield Service(app, settings, ledger, database, writer)
    finally:
        database.close()


@dataclass(frozen=True)
class Running:
    """A started service with a client that has the key and one that has none."""

    service: Service
    release: Release
    client: TestClient
    stranger: TestClient

    def rerank(self, query: str, documents: list[str], **fields: Any) -> Any:
        """The JSON of /v2/rerank, which must succeed."""
        response = self.client.post(
            "/v2/rerank", json={"model": "champion", "query": query, "documents": documents, **fields}
        )
        assert response.status_code == 200, response.text
        return response.json()

    def answer(self, query: str, **fields: Any) -> Any:
        """The JSON of /v1/answer, which must succeed."""
        response = self.client.post("/v1/answer", json={"query": query, **fields})
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="session")
def running(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The small deployment's first candidate, released and served."""
    with service_in(tmp_path_factory.mktemp("service"), small.settings) as service:
        release = put_in_service(service.ledger, small.first, "7")
        with TestClient(service.app, headers=AUTHORIZED, raise_server_exceptions=False) as client:
            yield Running(service, release, client, TestClient(service.app, raise_server_exceptions=False))


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def watcher(tmp_path: Path, ledger: Ledger, loader: Loader) -> Iterator[ReleaseWatcher]:
    """A watcher that looks at the ledger when it is told to, and once at its start."""
    serving = {"poll_seconds": 3600, "workers": WORKERS, "max_queue_ms": QUEUE_MS}
    settings = small_settings(tmp_path, serving=serving, tiers={"reserve_ms": RESERVE_MS})
    built = ReleaseWatcher(settings, ledger, loader, Telemetry(settings.objectives))
    yield built
    built.stop()
