"""POST /v1/release/refresh."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, service_in
from tests.services.scripted_bundle import Loader
from tests.small_bundle import small_settings


def test_a_refresh_serves_the_ledgers_release_and_answers_when_it_does(tmp_path: Path) -> None:
    with (
        service_in(tmp_path, small_settings(tmp_path), Loader()) as service,
        TestClient(service.app, headers=AUTHORIZED) as client,
    ):
        nothing = client.post("/v1/release/refresh")
        assert (nothing.status_code, nothing.json()["error"]["code"]) == (503, "no_release")
        release = release_bundle(service.ledger, "b1", "3")
        swap = client.post("/v1/release/refresh").json()
        served = client.get("/health").json()["served"]["release_id"]
        again = client.post("/v1/release/refresh").json()
    assert (swap["release_id"], swap["bundle_version"], swap["model_version"]) == (release.release_id, "b1", "3")
    assert served == release.release_id
    assert swap["swapped"] is True
    assert set(swap["warm_up_ms"]) == {"retrieve", "rank_candidates", "rank_documents"}
    assert (again["swapped"], again["warm_up_ms"], again["release_id"]) == (False, {}, release.release_id)


def test_it_takes_nothing_from_the_request(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        release = release_bundle(service.ledger, "b1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            body = {"release_id": "r-other", "bundle_version": "/etc/passwd"}
            assert client.post("/v1/release/refresh?release_id=x", json=body).json()["release_id"] == release.release_id
