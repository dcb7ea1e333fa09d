"""What every route of one app shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.serving.api_keys import KeyCheck
from models.serving.chat_generator import ChatGenerator
from models.settings import Settings
from services.errors import InvalidRequest
from services.release_watcher import ReleaseWatcher
from services.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The parts of a running service."""

    settings: Settings
    watcher: ReleaseWatcher
    telemetry: Telemetry
    writer: DecisionWriter
    database: Database
    key: KeyCheck
    chat: ChatGenerator | None = None
    """The language model that writes answers, where one is set."""


async def _of_app(request: Request) -> ServiceContext:
    # A plain function would wait for a thread of the pool that reads the database.
    return request.app.state.context


async def caller_left(request: Request) -> None:
    """Return when the caller has closed the connection; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def check_query(query: str, context: ServiceContext) -> None:
    """Raise `InvalidRequest` for a query that is too long, before anything reads it."""
    limit = context.settings.serving.max_query_characters
    if len(query) > limit:
        hint = "Shorten it, or raise serving.max_query_characters"
        raise InvalidRequest(f"query: {len(query)} characters are more than {limit}", hint, param="query")


Context = Annotated[ServiceContext, Depends(_of_app)]
"""The context as a route's parameter."""
