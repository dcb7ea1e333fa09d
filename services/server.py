"""The service as a process: the real parts, wired, behind uvicorn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from models.errors import RerankOpsError
from models.settings import Settings
from services.log_lines import error_facts

if TYPE_CHECKING:
    from models.records.database import Database
    from models.records.ledger import Ledger
    from models.serving.last_releases import LastReleases

_GRACE_S = 30
_LOG = logging.getLogger(__name__)


def open_ledger(database: Database, last: LastReleases) -> Ledger:
    """The ledger of a database that is migrated now, or where it cannot be reached and releases are known, as soon as
    it can be. Raises `DatabaseError`."""
    from models.records.database import DatabaseUnreachable
    from models.records.ledger import Ledger, LedgerToMigrate

    try:
        database.migrate()
    except DatabaseUnreachable as error:
        if not last.read():
            raise
        _LOG.error("the database is away; what was served last serves", extra={"facts": error_facts(error)})
        return LedgerToMigrate(database)
    return Ledger(database)


def run(settings: Settings) -> None:
    """Serve until stopped. Raises `SettingsError` for an unusable key, host or database URL, and `RerankOpsError` for a
    port that cannot be had, before anything is loaded."""
    import os
    from functools import partial

    import uvicorn

    from models.records.database import Database
    from models.records.decision_writer import DecisionWriter
    from models.serving.api_keys import probe_key, service_key
    from models.serving.client import service_url
    from models.serving.engines import LocalEngines, OpenEngines
    from models.serving.last_releases import LastReleases
    from models.serving.loaded_bundle import load_release
    from models.serving.score_cache import RedisCache, open_cache
    from models.serving.words_bundle import load_words
    from services.app import create_app
    from services.listening import impatient_protocol, open_port
    from services.log_lines import log_to_stderr
    from services.scorer.supervisor import ScorerProcess, ScorerRestarts

    log_to_stderr()
    key, origin = service_key(settings.home)
    cache = open_cache(settings.cache, os.environ.get(settings.cache.password_env), key)
    restarts = ScorerRestarts()
    open_engines: OpenEngines = LocalEngines
    if settings.serving.scorer_process:
        open_engines = partial(ScorerProcess, timeout_s=settings.serving.scorer_timeout_s, restarts=restarts)
    serving = settings.serving
    database = Database(settings.database_url)
    listener = None
    try:
        last = LastReleases.of(settings)
        ledger = open_ledger(database, last)
        listener = open_port(serving.host, serving.port)
        with DecisionWriter(
            database, settings.home / "spool" / "decisions.jsonl", keep_days=settings.retention.decision_days
        ) as writer:
            app = create_app(
                settings,
                ledger=ledger,
                last=last,
                load=partial(load_release, cache=cache, open_engines=open_engines),
                load_words=load_words,
                writer=writer,
                database=database,
                key=key,
                cache=cache,
                restarts=restarts,
                probe_key=probe_key(settings.home),
                load_in_background=True,
            )
            address = service_url(settings)
            _LOG.info("starting", extra={"facts": {"address": address, "key_from": origin}})
            print(f"Serving at {address}; the key is in {origin} (Authorization: Bearer <key>).", flush=True)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    http=impatient_protocol(serving.request_timeout_s),
                    workers=1,
                    log_config=None,
                    access_log=False,  # The app logs each request without its path's ids.
                    server_header=False,
                    timeout_graceful_shutdown=_GRACE_S,
                )
            )
            server.run(sockets=[listener])
            if not server.started:
                raise RerankOpsError("the service did not start", "Its log says why.")
    finally:
        if listener is not None:
            listener.close()
        if isinstance(cache, RedisCache):
            cache.close()
        database.close()
