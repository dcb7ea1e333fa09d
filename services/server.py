"""The service as a process: the real parts, wired, behind uvicorn."""

from __future__ import annotations

import logging

from models.settings import Settings

_GRACE_S = 30
_BACKLOG = 512


def run(settings: Settings) -> None:
    """Serve until stopped. Raises `SettingsError` for an unusable key or database URL, before the port is opened."""
    import os
    from functools import partial

    import uvicorn

    from models.records.database import Database
    from models.records.decision_writer import DecisionWriter
    from models.records.ledger import Ledger
    from models.serving.api_keys import service_key
    from models.serving.engines import LocalEngines, OpenEngines
    from models.serving.loaded_bundle import load_release
    from models.serving.score_cache import RedisCache, open_cache
    from services.app import create_app
    from services.log_lines import log_to_stderr
    from services.scorer.supervisor import ScorerProcess, ScorerRestarts

    log_to_stderr()
    key, origin = service_key(settings.home)
    cache = open_cache(settings.cache, os.environ.get(settings.cache.password_env), key)
    restarts = ScorerRestarts()
    open_engines: OpenEngines = LocalEngines
    if settings.serving.scorer_process:
        open_engines = partial(ScorerProcess, timeout_s=settings.serving.scorer_timeout_s, restarts=restarts)
    database = Database(settings.database_url)
    database.migrate()
    try:
        with DecisionWriter(database, settings.home / "spool" / "decisions.jsonl") as writer:
            app = create_app(
                settings,
                ledger=Ledger(database),
                load=partial(load_release, cache=cache, open_engines=open_engines),
                writer=writer,
                database=database,
                key=key,
                cache=cache,
                restarts=restarts,
            )
            address = f"http://{settings.serving.host}:{settings.serving.port}"
            logging.getLogger(__name__).info("starting", extra={"facts": {"address": address, "key_from": origin}})
            print(f"Serving at {address}; the key is in {origin} (Authorization: Bearer <key>).", flush=True)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    host=settings.serving.host,
                    port=settings.serving.port,
                    workers=1,
                    backlog=_BACKLOG,
                    log_config=None,
                    access_log=False,  # The app logs each request without its path's ids.
                    server_header=False,
                    timeout_graceful_shutdown=_GRACE_S,
                )
            )
            server.run()
    finally:
        if isinstance(cache, RedisCache):
            cache.close()
        database.close()
