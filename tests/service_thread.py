"""The real service in a thread of the test, behind a real port, with scripted bundles."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from assets.resources import Deployment
from models.records.decision_writer import DecisionWriter
from models.records.ledger import Ledger
from models.serving.api_keys import probe_key, service_key
from services.app import create_app
from tests.patience import PATIENCE_S
from tests.services.scripted_bundle import Loader


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@contextmanager
def served(deployment: Deployment, listener: socket.socket) -> Iterator[DecisionWriter]:
    """The real service with bundles that rank their one passage, `p1`, behind a real port."""
    settings, database = deployment.settings(), deployment.database()
    with DecisionWriter(database, settings.home / "spool" / "decisions.jsonl", flush_s=0.01) as writer:
        key, _ = service_key(settings.home)
        app = create_app(
            settings,
            ledger=Ledger(database),
            load=Loader(),
            writer=writer,
            database=database,
            key=key,
            probe_key=probe_key(settings.home),
        )
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert server.listens.wait(PATIENCE_S)
        try:
            yield writer
        finally:
            server.should_exit = True
            thread.join()
