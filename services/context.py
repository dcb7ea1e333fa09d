"""What every route of one app shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from models.records.database import Database
from models.records.decision_writer import DecisionWriter
from models.serving.api_keys import KeyCheck
from models.settings import Settings
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


def _of_app(request: Request) -> ServiceContext:
    return request.app.state.context


async def caller_left(request: Request) -> None:
    """Return when the caller has closed the connection; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


Context = Annotated[ServiceContext, Depends(_of_app)]
"""The context as a route's parameter."""
