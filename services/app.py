"""The FastAPI application: routers, what stands in front of them, and the watcher of releases behind them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import FastAPI

from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.serving.api_keys import KeyCheck
from models.serving.chat_generator import ChatGenerator
from models.serving.last_releases import LastReleases, ReleaseLedger
from models.serving.score_cache import MemoryCache, RedisCache
from models.settings import Settings
from services.auth import LimitBody, Observe, RequireKey
from services.context import ServiceContext
from services.dialects import cohere, infinity, mixedbread, openai, sglang, tei, union, vllm
from services.errors import install_error_handlers
from services.release_watcher import ReleaseWatcher
from services.routes import answer, feedback, health, release, retrieve
from services.telemetry import Telemetry
from services.version import service_version

if TYPE_CHECKING:
    from services.scorer.supervisor import ScorerRestarts
    from services.served_release import LoadRelease

DIALECTS = (cohere, union, tei, infinity, vllm, mixedbread, sglang, openai)
"""The interfaces over one use case, `services.ranking`."""


def create_app(
    settings: Settings,
    *,
    ledger: ReleaseLedger,
    load: LoadRelease,
    writer: DecisionWriter,
    database: Database,
    key: str,
    cache: MemoryCache | RedisCache | None = None,
    restarts: ScorerRestarts | None = None,
    probe_key: str = "",
    load_in_background: bool = False,
    last: LastReleases | None = None,
    load_words: LoadRelease | None = None,
) -> FastAPI:
    """The service as one app; it serves the current release of `ledger` and follows it, or what is `last` known of it.

    Requests with the `probe_key` are the deployment's own. With `load_in_background` it starts before that release is
    loaded, and with `load_words` it answers meanwhile, without the models. The caller owns `writer`, `database` and
    `cache`, which `load` uses, and closes them after the app. `restarts` counts the scoring processes that `load`
    replaces.
    """
    telemetry = Telemetry(settings.objectives)
    telemetry.watch_writer(writer)
    if cache is not None:
        telemetry.watch_cache(cache)
    if restarts is not None:
        telemetry.watch_scorers(restarts)
    watcher = ReleaseWatcher(settings, ledger, load, telemetry, last, load_words)
    check = KeyCheck(key)
    chat = ChatGenerator(settings.generator) if settings.generator.kind == "chat" else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(partial(watcher.start, in_background=load_in_background))
        try:
            yield
        finally:
            if chat is not None:
                await chat.close()
            await anyio.to_thread.run_sync(watcher.stop)

    app = FastAPI(
        title="RerankOps",
        version=service_version(),
        lifespan=lifespan,
        docs_url=None,  # Swagger and ReDoc pages load scripts from a CDN.
        redoc_url=None,
        telemetry={"logs": False},  # FastAPI's own would record the inputs of refused requests.
    )
    app.state.context = ServiceContext(settings, watcher, telemetry, writer, database, check, chat)
    for group in (*DIALECTS, retrieve, answer, feedback, release, health):
        app.include_router(group.router)
    install_error_handlers(app)
    # The one added last stands outermost.
    app.add_middleware(LimitBody, settings=settings.serving)
    app.add_middleware(RequireKey, check=check, is_probe=KeyCheck(probe_key or secrets.token_hex()))
    app.add_middleware(Observe, telemetry=telemetry)
    return app
