"""Which bundle serves: swaps under load, releases that do not load, and the end of a bundle."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from starlette.testclient import TestClient

from models.errors import ArtifactError, ReleaseError
from models.records import decisions
from models.records.database import Database, DatabaseUnreachable
from models.records.decision_writer import DecisionWriter
from models.records.ledger import Ledger, Release
from models.serving.last_releases import LastReleases
from models.serving.loaded_bundle import LoadedBundle, load_bundle, load_release
from models.serving.protocol import Ranking
from models.settings import Settings
from services.app import create_app
from services.deadline import Deadline
from services.errors import NothingServed, ReleaseLoadFailed
from services.lanes import Bypass
from services.release_watcher import ReleaseWatcher
from services.server import open_ledger
from services.telemetry import Telemetry
from tests.patience import PATIENCE_S, until
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, KEY, service_in
from tests.services.scripted_bundle import (
    RESERVE_MS,
    WORKERS,
    Loader,
    ScriptedBundle,
    ask,
    blocked,
    in_given_order,
    work_of,
)
from tests.small_bundle import BUDGET_MS, Small, put_in_service, small_settings

QUERY = "how is the hay baler started"
DOCUMENTS = [f"{note} Open the main valve of the hay baler." for note in ("It is withdrawn.", "It is in force.")]
ASKING = 4


def test_a_swap_under_load_fails_nothing_and_mixes_nothing(small: Small, loaded: LoadedBundle, tmp_path: Path) -> None:
    other = load_bundle(small.shuffled().bundle)
    expected = {
        "1": {item.index: item.score for item in loaded.rank_documents(QUERY, DOCUMENTS, BUDGET_MS).items},
        "2": {item.index: item.score for item in other.rank_documents(QUERY, DOCUMENTS, BUDGET_MS).items},
    }
    assert min(abs(expected["1"][index] - expected["2"][index]) for index in (0, 1)) > 0.01
    with service_in(tmp_path, small.settings) as service:
        releases = {"1": put_in_service(service.ledger, small.first, "1")}

        async def keep_asking(client: httpx.AsyncClient, first: asyncio.Event, swapped: asyncio.Event) -> list[Any]:
            answers: list[Any] = []
            last = False
            while not last:
                last = swapped.is_set()
                body = {"model": "champion", "query": QUERY, "documents": DOCUMENTS}
                answers.append(await client.post("/v2/rerank", json=body))
                first.set()
            return answers

        async def go() -> list[list[Any]]:
            swapped = asyncio.Event()
            transport = httpx.ASGITransport(service.app)
            async with (
                service.app.router.lifespan_context(service.app),
                httpx.AsyncClient(
                    transport=transport, base_url="http://service", headers=AUTHORIZED, timeout=None
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                started = [asyncio.Event() for _ in range(ASKING)]
                callers = [group.create_task(keep_asking(client, first, swapped)) for first in started]
                for first in started:
                    await first.wait()
                releases["2"] = put_in_service(service.ledger, small.shuffled(), "2")
                swap = await client.post("/v1/release/refresh")
                assert swap.json()["swapped"] is True
                assert swap.json()["release_id"] == releases["2"].release_id
                swapped.set()
            return [caller.result() for caller in callers]

        callers = asyncio.run(go())
    for answers in callers:
        served = []
        for answer in answers:
            assert answer.status_code == 200, answer.text
            observed = answer.json()
            version = observed["meta"]["model_version"]
            served.append(version)
            assert observed["meta"]["release_id"] == answer.headers["X-Release-Id"] == releases[version].release_id
            scores = {result["index"]: result["relevance_score"] for result in observed["results"]}
            assert scores == pytest.approx(expected[version], abs=1e-5)
        assert served == sorted(served), "no caller falls back to the release before"
        assert (served[0], served[-1]) == ("1", "2")


def test_a_release_whose_files_were_altered_is_refused_while_the_one_before_serves_on(
    small: Small, tmp_path: Path
) -> None:
    altered = shutil.copytree(small.first.bundle.folder, tmp_path / "altered", copy_function=os.link)
    calibration = altered / "calibration.json"
    changed = calibration.read_bytes().replace(b"1", b"2", 1)
    calibration.unlink()
    calibration.write_bytes(changed)

    def load(settings: Settings, release: Release) -> LoadedBundle:
        if release.model_version == "1":
            return load_release(settings, release)
        return load_bundle(replace(small.first.bundle, folder=altered), release_id=release.release_id)

    body = {"model": "champion", "query": QUERY, "documents": DOCUMENTS}
    with service_in(tmp_path, small.settings, load) as service:
        first = put_in_service(service.ledger, small.first, "1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            before = client.post("/v2/rerank", json=body).json()
            put_in_service(service.ledger, small.first, "2")
            refused = client.post("/v1/release/refresh")
            after = client.post("/v2/rerank", json=body).json()
            health = client.get("/health").json()
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "release_load_failed")
    assert "calibration.json differs from its digest" in refused.json()["message"]
    assert before["results"] == after["results"]
    assert after["meta"]["release_id"] == first.release_id
    assert (health["status"], health["served"]["release_id"]) == ("stale", first.release_id)


def test_a_pinned_version_is_refused_once_another_serves(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        release_bundle(service.ledger, "b1", "1")

        async def go() -> list[int]:
            transport = httpx.ASGITransport(service.app)
            async with (
                service.app.router.lifespan_context(service.app),
                httpx.AsyncClient(transport=transport, base_url="http://service", headers=AUTHORIZED) as client,
            ):
                body = {"model": "1", "query": QUERY, "documents": DOCUMENTS}
                before = await client.post("/v2/rerank", json=body)
                release_bundle(service.ledger, "b2", "2")
                await client.post("/v1/release/refresh")
                after = await client.post("/v2/rerank", json=body)
                return [before.status_code, after.status_code]

        assert asyncio.run(go()) == [200, 404]


def test_a_request_that_was_queued_before_the_swap_gets_the_release_it_was_queued_for(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    first = loader.loaded[0]
    inside, go_on = threading.Event(), threading.Event()

    def block(count: int) -> Ranking:
        inside.set()
        assert go_on.wait(PATIENCE_S)
        return in_given_order(count)

    first.rank = block
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(ask, watcher)
        assert inside.wait(PATIENCE_S)
        queued = threads.submit(ask, watcher, "queued")
        while watcher.queued_requests < 2:
            threading.Event().wait(0.001)
        release_bundle(ledger, "b2", "2")
        swap = watcher.refresh()
        assert swap is not None
        assert swap.swapped
        assert ask(watcher) == "b2"
        assert not first.closed.is_set()
        go_on.set()
        assert (running.result(PATIENCE_S), queued.result(PATIENCE_S)) == ("b1", "b1")
    assert first.closed.wait(PATIENCE_S)
    assert first.asked[-1] == "queued"
    assert not loader.loaded[1].closed.is_set()


def test_refreshing_a_release_that_serves_loads_nothing(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release = release_bundle(ledger, "b1")
    watcher.start()
    swap = watcher.refresh()
    assert swap is not None
    assert (swap.swapped, swap.release.release_id, swap.warm_up_ms) == (False, release.release_id, {})
    assert len(loader.loaded) == 1


@pytest.mark.parametrize("error", [ArtifactError("a file differs", "make it again"), MemoryError("CUDA /opt/x")])
def test_a_broken_release_leaves_the_served_one_serving(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader, error: Exception
) -> None:
    first = release_bundle(ledger, "b1")
    watcher.start()
    loader.broken["b2"] = error
    second = release_bundle(ledger, "b2", "2")
    with pytest.raises(ReleaseLoadFailed, match=second.release_id) as raised:
        watcher.refresh()
    assert "/opt" not in str(raised.value)
    assert watcher.served is not None
    assert watcher.served.release_id == first.release_id
    assert ask(watcher) == "b1"
    assert watcher.fault is not None
    assert (watcher.fault.release_id, watcher.fault.attempts) == (second.release_id, 1)
    assert watcher.fault.error == type(error).__name__


def test_a_broken_release_is_tried_again_later_or_when_asked_and_forgotten_once_it_loads(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    loader.broken["b1"] = ArtifactError("not there yet")
    release_bundle(ledger, "b1")
    watcher.start()
    with pytest.raises(NothingServed, match="does not load"):
        ask(watcher)
    first = watcher.fault
    watcher.look()
    assert watcher.fault is first, "a look before the retry is due leaves it alone"
    with pytest.raises(ReleaseLoadFailed):
        watcher.refresh()
    assert watcher.fault is not None
    assert first is not None
    assert (first.attempts, watcher.fault.attempts) == (1, 2)
    assert watcher.fault.retry_at - first.retry_at > 25, "the pause doubles"
    del loader.broken["b1"]
    watcher.refresh()
    assert watcher.fault is None
    assert ask(watcher) == "b1"


def test_a_release_that_is_rolled_back_while_it_loads_never_serves(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_bundle(ledger, "b1")
    watcher.start()

    def roll_back_meanwhile(settings: Settings, release: Release) -> ScriptedBundle:
        if release.bundle_version == "b2":
            ledger.activate(ledger.begin_rollback(actor="ana", reason="bad").release_id)
        return loader(settings, release)

    monkeypatch.setattr(watcher, "_load", roll_back_meanwhile)
    release_bundle(ledger, "b2", "2")
    swap = watcher.refresh()
    assert swap is not None
    assert swap.release == watcher.served == ledger.current()
    assert ask(watcher) == "b1"
    _, bad, _ = loader.loaded
    assert bad.versions.bundle_version == "b2"
    assert bad.closed.wait(PATIENCE_S)


def test_a_release_that_fails_while_it_is_rolled_back_is_no_fault(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_bundle(ledger, "b1")
    watcher.start()

    def fail_and_roll_back(settings: Settings, release: Release) -> ScriptedBundle:
        if release.bundle_version == "b2":
            ledger.activate(ledger.begin_rollback(actor="ana", reason="bad").release_id)
            raise ArtifactError("a file differs")
        return loader(settings, release)

    monkeypatch.setattr(watcher, "_load", fail_and_roll_back)
    release_bundle(ledger, "b2", "2")
    swap = watcher.refresh()
    assert swap is not None
    assert (swap.release, watcher.fault) == (ledger.current(), None)


def test_after_a_restart_the_newest_release_that_loads_serves_until_the_current_one_does(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    """Nothing was served although a sound release was there."""
    releases = [release_bundle(ledger, f"b{number}", str(number)) for number in (1, 2, 3, 4)]
    loader.broken |= {"b3": ArtifactError("gone"), "b4": ArtifactError("a file differs")}
    watcher.start()
    assert watcher.served == releases[1]
    assert ask(watcher) == "b2"
    assert watcher.fault is not None
    assert watcher.fault.release_id == releases[3].release_id, "it is told what does not load"
    del loader.broken["b4"]
    watcher.refresh()
    assert (watcher.served, watcher.fault) == (releases[3], None)


def test_a_release_that_was_rolled_back_does_not_serve_in_place_of_the_one_that_does_not_load(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release_bundle(ledger, "b1")
    release_bundle(ledger, "b2", "2")
    ledger.activate(ledger.begin_rollback(actor="ana", reason="bad").release_id)
    loader.broken["b1"] = ArtifactError("gone")
    watcher.start()
    assert watcher.served is None
    assert loader.loaded == []


def test_a_newer_release_is_loaded_though_the_one_before_is_being_waited_for(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    loader.broken["b1"] = ArtifactError("gone")
    release_bundle(ledger, "b1")
    watcher.start()
    release_bundle(ledger, "b2", "2")
    watcher.look()
    assert ask(watcher) == "b2"
    assert watcher.fault is None


def test_while_the_first_release_is_loaded_its_words_answer(tmp_path: Path, ledger: Ledger, loader: Loader) -> None:
    """Whoever asked in those seconds got a 503, though the passages and words are there at once."""
    settings = small_settings(tmp_path, serving={"poll_seconds": 3600})
    loading, go_on = threading.Event(), threading.Event()
    words = Loader()

    def load_words(settings: Settings, release: Release) -> ScriptedBundle:
        bundle = words(settings, release)
        bundle.outage = "the models are being loaded"
        return bundle

    def load(settings: Settings, release: Release) -> ScriptedBundle:
        loading.set()
        assert go_on.wait(PATIENCE_S)
        return loader(settings, release)

    watcher = ReleaseWatcher(settings, ledger, load, Telemetry(settings.objectives), load_words=load_words)
    release_bundle(ledger, "b1")
    watcher.start(in_background=True)
    assert loading.wait(PATIENCE_S)
    assert ask(watcher) == Bypass("scorer", "the models are being loaded")
    assert (watcher.served, watcher.outage) == (None, "the models are being loaded")
    go_on.set()
    until(lambda: watcher.served is not None)
    assert ask(watcher) == "b1"
    assert watcher.outage == ""
    assert words.loaded[0].closed.wait(PATIENCE_S)
    loading.clear()
    release_bundle(ledger, "b2", "2")
    watcher.look()
    assert ask(watcher) == "b2"
    assert len(words.loaded) == 1, "a swap needs none: what served before goes on"
    watcher.stop()


@pytest.mark.parametrize("broken", ["words", "models"])
def test_words_end_with_the_load_and_their_fault_is_not_the_releases(
    tmp_path: Path, ledger: Ledger, loader: Loader, broken: str
) -> None:
    settings = small_settings(tmp_path, serving={"poll_seconds": 3600})
    words = Loader()
    (words if broken == "words" else loader).broken["b1"] = ArtifactError("a file differs")
    watcher = ReleaseWatcher(settings, ledger, loader, Telemetry(settings.objectives), load_words=words)
    release_bundle(ledger, "b1")
    watcher.start()
    if broken == "words":
        assert (ask(watcher), watcher.fault) == ("b1", None)
    else:
        assert watcher.fault is not None
        assert words.loaded[0].closed.wait(PATIENCE_S)
        with pytest.raises(NothingServed):
            ask(watcher)
    watcher.stop()


def test_a_ledger_that_is_away_changes_nothing_and_is_noticed(watcher: ReleaseWatcher, ledger: Ledger) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    real, ledger.current = ledger.current, lambda: (_ for _ in ()).throw(ReleaseError("away"))
    watcher.look()
    assert watcher.ledger_reachable is False
    assert ask(watcher) == "b1"
    ledger.current = real
    watcher.look()
    assert watcher.ledger_reachable is True


def test_a_service_that_starts_while_the_database_is_away_serves_what_it_served_last(
    postgresql_server: str, tmp_path: Path, loader: Loader
) -> None:
    """Nothing was served, though the bundles were there."""
    url = postgresql_server.replace("postgresql://", "postgresql+psycopg://").removesuffix("postgres") + "away"
    settings = small_settings(tmp_path, serving={"poll_seconds": 3600})
    last = LastReleases(tmp_path / "last_releases.json")

    @contextmanager
    def started() -> Iterator[tuple[TestClient, Database]]:
        database = Database(url)
        try:
            ledger = open_ledger(database, last)
            with DecisionWriter(database, tmp_path / "decisions.jsonl", flush_s=0.01) as writer:
                app = create_app(
                    settings, ledger=ledger, load=loader, writer=writer, database=database, key=KEY, last=last
                )
                with TestClient(app, headers=AUTHORIZED) as client:
                    yield client, database
        finally:
            database.close()

    def served(client: TestClient) -> tuple[str, str, bool, bool]:
        health = client.get("/health").json()
        bundle = health["served"] and health["served"]["bundle_version"]
        return bundle, health["status"], health["remembered"], health["ledger_reachable"]

    def recorded(client: TestClient) -> str:
        response = client.post("/v2/rerank", json={"query": QUERY, "documents": DOCUMENTS, "model": "champion"})
        return response.headers["X-Decision-Recorded"]

    with psycopg.connect(postgresql_server, autocommit=True) as server:
        with pytest.raises(DatabaseUnreachable), started():
            pass
        server.execute("CREATE DATABASE away")
        with started() as (client, database):
            ledger = Ledger(database)
            for number in (1, 2, 3):
                release_bundle(ledger, f"b{number}", str(number))
                client.post("/v1/release/refresh").raise_for_status()
            ledger.activate(ledger.begin_rollback(actor="ana", reason="bad").release_id)
            loader.broken["b2"] = ArtifactError("a file differs")
            assert client.post("/v1/release/refresh").status_code == 500
            assert served(client) == ("b3", "stale", False, True)
        server.execute("ALTER DATABASE away ALLOW_CONNECTIONS false")
        with started() as (client, database):
            assert served(client) == ("b1", "remembered", True, False), (
                "neither what is damaged nor what was rolled back"
            )
            assert recorded(client) == "true"
            server.execute("ALTER DATABASE away ALLOW_CONNECTIONS true")
            del loader.broken["b2"]
            client.post("/v1/release/refresh").raise_for_status()
            assert served(client) == ("b2", "ok", False, True)
            assert recorded(client) == "true"
            until(lambda: len([*decisions.read(database, datetime(2026, 1, 1, tzinfo=UTC), datetime.now(UTC))]) == 2)
        server.execute("DROP DATABASE away WITH (FORCE)")


def test_a_retired_bundle_is_closed_behind_its_last_request(
    watcher: ReleaseWatcher, ledger: Ledger, loader: Loader
) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    first = loader.loaded[0]

    async def rest(go_on: threading.Event) -> bool:
        late = asyncio.ensure_future(watcher.run(work_of(lambda bundle: None), Deadline(1.5 * RESERVE_MS)))
        await asyncio.sleep(0)
        release_bundle(ledger, "b2", "2")
        await asyncio.to_thread(watcher.refresh)
        assert await watcher.run(work_of(lambda bundle: bundle.versions.bundle_version), Deadline(BUDGET_MS)) == "b2"
        assert await late == Bypass("late", "the models had not ended when its time ran out")
        return first.closed.is_set()

    assert blocked(watcher, WORKERS, rest) is False
    assert first.closed.wait(PATIENCE_S)
    assert not loader.loaded[1].closed.is_set()


def test_stopping_closes_the_bundle_and_serves_no_more(watcher: ReleaseWatcher, ledger: Ledger, loader: Loader) -> None:
    release_bundle(ledger, "b1")
    watcher.start()
    watcher.stop()
    assert loader.loaded[0].closed.is_set()
    with pytest.raises(NothingServed):
        ask(watcher)
    release_bundle(ledger, "b2", "2")
    assert watcher.refresh() is None
    assert len(loader.loaded) == 1


def test_a_new_release_is_found_without_being_told(tmp_path: Path, ledger: Ledger, loader: Loader) -> None:
    settings = small_settings(tmp_path, serving={"poll_seconds": 0.01, "candidates": 8})
    swapped = threading.Event()

    def load(settings: Settings, release: Release) -> ScriptedBundle:
        bundle = loader(settings, release)
        if release.bundle_version == "b2":
            swapped.set()
        return bundle

    watcher = ReleaseWatcher(settings, ledger, load, Telemetry(settings.objectives))
    watcher.start()
    assert watcher.served is None
    release_bundle(ledger, "b1")
    release_bundle(ledger, "b2", "2")
    assert swapped.wait(PATIENCE_S)
    assert watcher.refresh() is not None  # Waits for the load that goes on.
    assert ask(watcher) == "b2"
    watcher.stop()
