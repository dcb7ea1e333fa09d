"""The names of the served model, and what is the same behind every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.serving.protocol import Ranked, Ranking
from services.app import DIALECTS
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, service_in
from tests.services.scripted_bundle import Loader
from tests.services.test_errors import ERROR_KEYS, RERANK_BODIES
from tests.small_bundle import small_settings

ALIASES = {"rerank-v3.5": "champion", "rerank-old": "2", "rerank-pinned": "3", "rerank-name": "reranker"}


@pytest.fixture(scope="module")
def loader() -> Loader:
    return Loader()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, loader: Loader) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("ranking")
    settings = small_settings(folder, serving={"model_aliases": ALIASES, "max_documents": 9, "max_query_characters": 9})
    with service_in(folder, settings, loader) as service:
        release_bundle(service.ledger, "b1", "3")
        with TestClient(service.app, headers=AUTHORIZED, raise_server_exceptions=False) as authorized:
            yield authorized


def test_every_rerank_route_is_tested_here(client: TestClient) -> None:
    posted = {
        route.path for dialect in DIALECTS for route in dialect.router.routes if "POST" in getattr(route, "methods", ())
    }
    assert posted == set(RERANK_BODIES)


@pytest.mark.parametrize("path", RERANK_BODIES)
@pytest.mark.parametrize(
    ("model", "status"),
    [
        *((name, 200) for name in ("champion", "3", "rerank-v3.5", "rerank-pinned", "rerank-name")),
        *((name, 404) for name in ("rerank-old", "2", "rerank", "Champion")),
    ],
)
def test_a_model_is_an_alias_the_served_version_or_a_404(
    client: TestClient, path: str, model: str, status: int
) -> None:
    response = client.post(path, json={**RERANK_BODIES[path], "model": model})
    assert response.status_code == status
    if status == 200:
        assert response.headers["X-Model-Version"] == "3"
    else:
        assert "Allowed: champion, reranker, 3, rerank-v3.5, rerank-pinned, rerank-name" in response.text


def test_aliases_are_listed_where_they_are_served(client: TestClient) -> None:
    names = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    assert names == ["champion", "reranker", "3", "rerank-v3.5", "rerank-pinned", "rerank-name"]


@pytest.mark.parametrize("path", RERANK_BODIES)
def test_every_dialect_is_recorded_counted_and_limited(client: TestClient, path: str) -> None:
    body = RERANK_BODIES[path]
    answered = client.post(path, json=body, headers={"X-Timeout-Ms": "0.001"})
    assert answered.headers["X-Degraded"] == "true"
    record = client.get(f"/v1/decisions/{answered.headers['X-Decision-Id']}").json()
    assert record["endpoint"] == path
    counted = client.get("/metrics").text
    assert f'rerankops_degraded_total{{route="{path}",why="budget"}}' in counted
    assert f'rerankops_requests_total{{method="POST",route="{path}",status="200"}}' in counted
    queries, texts = [name for name in body if name != "model"]
    for field, value in ((texts, ["a"] * 10), (queries, "x" * 10)):
        refused = client.post(path, json={**body, field: value, **({queries: "q"} if field == texts else {})})
        assert refused.status_code == 422, refused.text
        assert set(refused.json()) in ERROR_KEYS
    unknown = client.post(path, json=body, headers={"Authorization": "Bearer rk_wrong"})
    assert unknown.status_code == 401
    assert client.post(path, json=body, headers={"X-Timeout-Ms": "nan"}).status_code == 422


@pytest.mark.parametrize("path", RERANK_BODIES)
@pytest.mark.parametrize("fault", [{"score": float("nan")}, {"logit": float("inf")}])
def test_no_score_that_is_not_a_number_leaves_any_dialect(
    client: TestClient, loader: Loader, monkeypatch: pytest.MonkeyPatch, path: str, fault: dict[str, Any]
) -> None:
    def rank(count: int) -> Ranking:
        fields = {"score": 0.5, "logit": 0.0, **fault}
        return Ranking([Ranked(n, None, tier="lean", dense_score=0, lexical_score=0, **fields) for n in range(count)])

    monkeypatch.setattr(loader.loaded[-1], "rank", rank)
    response = client.post(path, json=RERANK_BODIES[path])
    assert response.status_code == 500
    assert set(response.json()) in ERROR_KEYS
