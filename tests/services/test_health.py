"""GET /health, /health/ready and /metrics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio.to_thread
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from models.contracts.messages import PROBE_CALLER, PROBE_HEADER
from models.errors import ArtifactError
from models.records.ledger import Release
from models.serving.loaded_bundle import load_release
from models.serving.score_cache import MemoryCache
from models.settings import Settings
from tests.patience import PATIENCE_S, until
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, KEY, PROBE_KEY, Running, Service, service_in
from tests.services.scripted_bundle import Loader, ScriptedBundle
from tests.small_bundle import Small, put_in_service, small_settings

RERANK = {"model": "champion", "query": "a secret question", "documents": ["a secret text", "b"]}
VERSIONS = ("release_id", "bundle_version", "model_version", "index_version", "corpus_version")


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def service(tmp_path: Path, loader: Loader) -> Iterator[Service]:
    with service_in(tmp_path, small_settings(tmp_path), loader) as built:
        yield built


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    """Value of each metric by its name and sorted label values."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_service_without_a_release_lives_and_is_not_ready(service: Service) -> None:
    with TestClient(service.app) as client:
        health, ready = client.get("/health"), client.get("/health/ready")
        refused = client.post("/v2/rerank", json=RERANK, headers=AUTHORIZED)
    assert (health.status_code, ready.status_code, refused.status_code) == (200, 503, 503)
    assert health.json() == ready.json()
    assert (health.json()["status"], health.json()["ready"], health.json()["served"]) == ("no_release", False, None)
    assert ready.headers["Retry-After"] == refused.headers["Retry-After"] == "5"
    assert refused.json()["error"]["code"] == "no_release"


def test_a_ready_service_says_what_it_serves(running: Running) -> None:
    for path in ("/health", "/health/ready"):
        response = running.stranger.get(path)
        assert response.status_code == 200
        result = response.json()
        assert (result["status"], result["ready"], result["load_failure"]) == ("ok", True, None)
        assert result["served"] == {name: getattr(running.release, name) for name in VERSIONS}
        assert result["ledger_reachable"] is True


def test_a_newer_release_that_fails_makes_it_stale_and_only_the_key_shows_why(service: Service, loader: Loader) -> None:
    first = release_bundle(service.ledger, "b1")
    loader.broken["b2"] = ArtifactError("large/model.safetensors differs from its digest")
    with TestClient(service.app) as client:
        second = release_bundle(service.ledger, "b2", "2")
        assert client.post("/v1/release/refresh", headers=AUTHORIZED).status_code == 500
        stranger = client.get("/health").json()
        known = client.get("/health", headers=AUTHORIZED).json()
        assert client.get("/health/ready").status_code == 200
    assert (stranger["status"], stranger["served"]["release_id"]) == ("stale", first.release_id)
    assert stranger["load_failure"]["release_id"] == second.release_id
    assert stranger["load_failure"]["message"] is None
    assert "differs from its digest" in known["load_failure"]["message"]
    wrong = {"Authorization": "Bearer other"}
    assert client.get("/health", headers=wrong).json()["load_failure"]["message"] is None


def test_a_first_release_that_fails_is_not_ready(service: Service, loader: Loader) -> None:
    release_bundle(service.ledger, "b1")
    loader.broken["b1"] = ArtifactError("gone")
    with TestClient(service.app) as client:
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health").json()["status"] == "no_release"
        refused = client.post("/v2/rerank", json=RERANK, headers=AUTHORIZED)
        assert "does not load" in refused.json()["message"]


def test_requests_rankings_and_decisions_are_counted(service: Service) -> None:
    release = release_bundle(service.ledger, "b1", "4")
    with TestClient(service.app, headers=AUTHORIZED) as client:
        response = client.post("/v2/rerank", json=RERANK).json()
        client.post("/v2/rerank", json={})
        client.get(f"/v1/decisions/{response['id']}")
        client.get("/unknown/path")
        client.request("BREW", "/v2/rerank")
        counted = samples(client)
    assert counted["rerankops_requests_total", "POST", "/v2/rerank", "200"] == 1
    assert counted["rerankops_requests_total", "POST", "/v2/rerank", "422"] == 1
    assert counted["rerankops_requests_total", "GET", "/v1/decisions/{decision_id}", "200"] == 1
    assert counted["rerankops_requests_total", "GET", "unmatched", "404"] == 1
    assert counted["rerankops_requests_total", "other", "/v2/rerank", "405"] == 1
    assert counted["rerankops_scored_total", "lean"] == 2
    assert counted["rerankops_request_seconds_count", "/v2/rerank"] == 3
    assert counted[("rerankops_decisions_written",)] == 1
    assert counted[("rerankops_decisions_lost",)] == counted[("rerankops_decisions_pending",)] == 0
    assert counted["rerankops_release_info", "b1", "c", "i", "4", release.release_id] == 1
    assert counted["rerankops_release_loads_total", "loaded"] == 1


def test_metrics_hold_no_text_no_key_and_no_ids_of_requests(service: Service) -> None:
    release_bundle(service.ledger, "b1")
    with TestClient(service.app, headers=AUTHORIZED) as client:
        response = client.post("/v2/rerank", json=RERANK).json()
        client.get(f"/v1/decisions/{response['id']}")
        text = client.get("/metrics").text
    for secret in ("secret", KEY, response["id"]):
        assert secret not in text


def test_the_objectives_are_bucket_bounds(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, objectives={"p95_ms": 321, "p99_ms": 987})
    with service_in(tmp_path, settings, Loader()) as service:
        release_bundle(service.ledger, "b1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            client.post("/v2/rerank", json=RERANK)
            bounds = {labels[0] for name, *labels in samples(client) if name == "rerankops_request_seconds_bucket"}
    assert {"0.321", "0.987"} <= bounds


def test_what_was_served_stands_beside_the_objectives(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, objectives={"p95_ms": 0.001, "p99_ms": 60_000})
    with service_in(tmp_path, settings, Loader()) as service:
        release_bundle(service.ledger, "b1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            before = client.get("/v1/objectives").json()
            client.post("/v2/rerank", json=RERANK)
            client.post("/v2/rerank", json={**RERANK, "timeout_ms": 0.001})
            client.post("/v2/rerank", json=RERANK, headers={PROBE_HEADER: PROBE_KEY})
            client.post("/v2/rerank", json={})
            result, counted = client.get("/v1/objectives").json(), samples(client)
            assert client.get("/v1/objectives", headers={"Authorization": "Bearer other"}).status_code == 401
    assert (before["requests"], before["p99_ms"], before["p95_budget_left"]) == (0, None, 1.0)
    assert (result["requests"], result["degraded_share"], result["window_minutes"]) == (2, 0.5, 60)
    assert (result["over_p95_share"], result["over_p99_share"], result["p99_budget_left"]) == (1.0, 0.0, 1.0)
    assert counted["rerankops_latency_seconds", "0.99"] == pytest.approx(result["p99_ms"] / 1000)
    assert counted["rerankops_objective_seconds", "0.99"] == 60
    assert counted["rerankops_error_budget_left", "0.95"] == pytest.approx(-19)
    assert counted[("rerankops_degraded_share",)] == 0.5
    assert counted["rerankops_answer_seconds_count", "/v2/rerank", "lean"] == 2
    assert counted["rerankops_degraded_total", "/v2/rerank", "budget"] == 1
    assert counted[("rerankops_queued_requests",)] == counted[("rerankops_queued_seconds",)] == 0


def test_known_scores_are_counted(small: Small, tmp_path: Path) -> None:
    cache = MemoryCache(2**20)
    with service_in(tmp_path, small.settings, partial(load_release, cache=cache), cache) as service:
        put_in_service(service.ledger, small.first, "1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            first, again = (client.post("/v2/rerank", json=RERANK).json() for _ in range(2))
            record = client.get(f"/v1/decisions/{again['id']}").json()
            counted = samples(client)
    assert first["meta"]["tiers"] == ["large", "large"]
    assert again["meta"]["tiers"] == ["cached", "cached"]
    assert again["results"] == first["results"]
    assert [(entry["tier"], entry["scored_by"]) for entry in record["ranking"]] == [("cached", "large")] * 2
    assert counted["rerankops_scored_total", "cached"] == 2
    assert counted[("rerankops_cache_hits",)] >= 4
    assert 0 < counted[("rerankops_cache_hit_share",)] < 1
    assert counted[("rerankops_cache_entries",)] > 4


def test_health_and_answers_do_not_wait_for_threads_that_read_the_database(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_bundle(service.ledger, "b1")
    blocked, go_on = threading.Semaphore(0), threading.Event()

    def wait(*_: object) -> None:
        blocked.release()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr("services.decision_record.decisions.get", wait)

    async def go() -> list[int]:
        transport = httpx.ASGITransport(service.app)
        async with (
            service.app.router.lifespan_context(service.app),
            httpx.AsyncClient(transport=transport, base_url="http://service", headers=AUTHORIZED) as client,
        ):
            threads = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
            reads = [asyncio.ensure_future(client.get(f"/v1/decisions/{n:032x}")) for n in range(threads + 5)]
            for _ in range(threads):
                while not blocked.acquire(blocking=False):
                    await asyncio.sleep(0.001)
            try:
                async with asyncio.timeout(PATIENCE_S / 2):
                    asked = [await client.get(path) for path in ("/health", "/health/ready", "/metrics")]
                    asked.append(await client.post("/v2/rerank", json=RERANK))
                    asked.append(await client.post("/v1/release/refresh"))
            finally:
                go_on.set()
                await asyncio.gather(*reads)
            return [response.status_code for response in asked]

    assert asyncio.run(go()) == [200] * 5


def test_a_service_answers_while_its_first_release_is_loaded(tmp_path: Path) -> None:
    go_on, loader = threading.Event(), Loader()

    def load(settings: Settings, release: Release) -> ScriptedBundle:
        assert go_on.wait(PATIENCE_S)
        return loader(settings, release)

    with service_in(tmp_path, small_settings(tmp_path), load, load_in_background=True) as service:
        release_bundle(service.ledger, "b1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            health, ready = client.get("/health"), client.get("/health/ready")
            refused = client.post("/v2/rerank", json=RERANK)
            go_on.set()
            until(lambda: client.get("/health/ready").status_code == 200)
            answered = client.post("/v2/rerank", json=RERANK)
    assert (health.status_code, ready.status_code, refused.status_code) == (200, 503, 503)
    assert "The release is being loaded" in refused.json()["message"]
    assert answered.status_code == 200


def test_only_the_deployments_own_probes_stand_outside_of_the_objectives(service: Service) -> None:
    release_bundle(service.ledger, "b1")
    with TestClient(service.app, headers=AUTHORIZED) as client:
        for value in (PROBE_KEY, "1", "golden query", KEY):
            response = client.post("/v2/rerank", json=RERANK, headers={PROBE_HEADER: value})
            record = client.get(f"/v1/decisions/{response.json()['id']}").json()
            assert (record["caller"] == PROBE_CALLER) == (value == PROBE_KEY)
        assert client.get("/v1/objectives").json()["requests"] == 3
