"""One loaded release: what it refuses to load, and requests that its models answer in time or not."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from models.errors import ScorerLost
from models.records.ledger import Ledger, Release
from models.serving.protocol import Ranking, ServedVersions
from models.settings import Settings
from services.deadline import Deadline
from services.errors import CallerLeft, ReleaseLoadFailed
from services.lanes import Bypass
from services.release_watcher import ReleaseWatcher
from services.telemetry import Telemetry
from tests.patience import PATIENCE_S
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, service_in
from tests.services.scripted_bundle import (
    QUEUE_MS,
    RESERVE_MS,
    WORKERS,
    Loader,
    ScriptedBundle,
    ask,
    blocked,
    in_given_order,
    work_of,
)
from tests.small_bundle import BUDGET_MS, small_settings

T = TypeVar("T")


def test_a_request_that_the_models_cannot_serve_in_time_is_answered_without_them_at_once(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    asked: list[Any] = []

    async def rest(go_on: threading.Event) -> list[Any]:
        deadline = Deadline(BUDGET_MS)
        heavy = await watcher.run(work_of(asked.append, BUDGET_MS), deadline)
        queued = watcher.queued_ms
        hasty = await watcher.run(work_of(asked.append, 1.0), Deadline(RESERVE_MS / 2))
        assert deadline.elapsed_ms < BUDGET_MS / 2
        return [heavy, hasty, queued]

    heavy, hasty, queued = blocked(watcher, WORKERS, rest)
    assert heavy == Bypass("overload", f"the queue holds {QUEUE_MS} ms of work")
    assert hasty == Bypass("budget", "the time budget has no room for the models")
    assert queued == WORKERS * 10.0
    assert asked == []
    assert watcher.queued_requests == 0


def test_a_request_whose_turn_does_not_come_is_answered_before_its_deadline_and_never_scored(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    asked: list[Any] = []

    async def rest(go_on: threading.Event) -> tuple[Any, float]:
        deadline = Deadline(1.5 * RESERVE_MS)
        return await watcher.run(work_of(asked.append, 1.0), deadline), deadline.remaining_ms

    bypass, left_ms = blocked(watcher, WORKERS, rest)
    assert bypass == Bypass("late", "the models had not ended when its time ran out")
    assert left_ms > 0
    assert ask(watcher) == "b1"
    assert asked == []


def test_what_a_caller_who_left_asked_for_is_dropped(watcher: ReleaseWatcher, ledger: Ledger, loader: Loader) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    asked: list[Any] = []

    async def leave() -> None:
        await asyncio.sleep(0)

    async def rest(go_on: threading.Event) -> None:
        with pytest.raises(CallerLeft):
            await watcher.run(work_of(asked.append), Deadline(BUDGET_MS), leave())
        task = asyncio.ensure_future(watcher.run(work_of(asked.append), Deadline(BUDGET_MS)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    blocked(watcher, WORKERS, rest)
    assert ask(watcher) == "b1"
    assert asked == []


def test_a_closed_connection_is_noticed(tmp_path: Path) -> None:
    loader, inside, go_on = Loader(), threading.Event(), threading.Event()
    body = json.dumps({"model": "champion", "query": "how is the loom oiled", "documents": ["Oil the loom."]}).encode()
    headers = [(b"content-type", b"application/json"), (b"authorization", AUTHORIZED["Authorization"].encode())]
    sent: list[Any] = []

    def block(count: int) -> Ranking:
        inside.set()
        assert go_on.wait(PATIENCE_S)
        return in_given_order(count)

    with service_in(tmp_path, small_settings(tmp_path), loader) as service:
        release_bundle(service.ledger, "b1")

        async def go() -> None:
            messages = iter([{"type": "http.request", "body": body}])

            async def receive() -> Any:
                if (message := next(messages, None)) is not None:
                    return message
                while not inside.is_set():
                    await asyncio.sleep(0.001)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/v2/rerank", "headers": headers, "query_string": b""}
            async with service.app.router.lifespan_context(service.app):
                loader.loaded[0].rank = block
                await service.app({**scope, "http_version": "1.1"}, receive, send)
                go_on.set()

        asyncio.run(go())
    assert sent[0]["status"] == 499
    assert service.writer.written == 0


def test_a_job_that_raises_hurts_only_its_request(watcher: ReleaseWatcher, ledger: Ledger) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(watcher.run(work_of(lambda bundle: 1 / 0), Deadline(BUDGET_MS)))
    assert ask(watcher) == "b1"


def test_while_the_models_are_away_every_request_is_answered_without_them(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release_bundle(ledger, "b1")
    watcher.refresh()
    (bundle,) = loader.loaded

    def lose(count: int) -> Ranking:
        raise ScorerLost("it ended")

    bundle.rank = lose
    assert ask(watcher, "in flight") == Bypass("scorer", "it ended")
    bundle.outage = "it starts again"
    assert watcher.outage == "it starts again"
    assert ask(watcher, "meanwhile") == Bypass("scorer", "it starts again")
    assert bundle.asked[-1] == "in flight"
    bundle.rank, bundle.outage = in_given_order, ""
    assert ask(watcher, "behind") == "b1"


def test_admission_learns_what_requests_take(watcher: ReleaseWatcher, ledger: Ledger) -> None:
    release_bundle(ledger, "b1")
    watcher.refresh()
    queued: list[float] = []

    def job(bundle: ScriptedBundle) -> str:
        queued.append(watcher.queued_ms)
        return bundle.versions.bundle_version

    for _ in range(30):
        assert asyncio.run(watcher.run(work_of(job, 800.0), Deadline(BUDGET_MS))) == "b1"
    assert queued[0] == 800
    assert queued[-1] < 200


@pytest.mark.parametrize("wrong", ["release_id", "bundle_version"])
def test_a_bundle_that_is_not_the_release_is_refused_and_closed(tmp_path: Path, ledger: Ledger, wrong: str) -> None:
    loaded: list[ScriptedBundle] = []

    def load(settings: Settings, release: Release) -> ScriptedBundle:
        loaded.append(ScriptedBundle(replace(ServedVersions.of(release), **{wrong: "other"})))
        return loaded[-1]

    settings = small_settings(tmp_path)
    watcher = ReleaseWatcher(settings, ledger, load, Telemetry(settings.objectives))
    release_bundle(ledger, "b1")
    with pytest.raises(ReleaseLoadFailed, match="loaded as"):
        watcher.refresh()
    assert loaded[0].closed.is_set()
    assert watcher.served is None


def test_a_bundle_that_answers_nonsense_while_warming_up_is_refused_and_closed(tmp_path: Path, ledger: Ledger) -> None:
    loaded: list[ScriptedBundle] = []

    def load(settings: Settings, release: Release) -> ScriptedBundle:
        loaded.append(ScriptedBundle(ServedVersions.of(release), rank=lambda count: in_given_order(0)))
        return loaded[-1]

    settings = small_settings(tmp_path)
    watcher = ReleaseWatcher(settings, ledger, load, Telemetry(settings.objectives))
    release_bundle(ledger, "b1")
    with pytest.raises(ReleaseLoadFailed, match="warm-up: rank_documents"):
        watcher.refresh()
    assert loaded[0].closed.is_set()
