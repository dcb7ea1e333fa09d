"""POST /v1/retrieve over the small deployment."""

from __future__ import annotations

from typing import Any

import pytest

from models.contracts.messages import CONTRACT_VERSION
from models.serving.loaded_bundle import LoadedBundle
from models.serving.protocol import candidates_of
from tests.services.conftest import Running
from tests.small_bundle import KEY_QUESTION, QUESTION, SECRET, STAFF


def retrieve(running: Running, query: str = QUESTION, **fields: Any) -> Any:
    response = running.client.post("/v1/retrieve", json={"query": query, **fields})
    assert response.status_code == 200, response.text
    assert response.headers["X-Release-Id"] == running.release.release_id
    return response.json()


@pytest.mark.parametrize("fields", [{}, {"top_k": 3}, {"timeout_ms": 0.001}])
def test_it_is_the_first_stage_of_the_bundle_whatever_the_time(
    running: Running, loaded: LoadedBundle, fields: dict[str, Any]
) -> None:
    result = retrieve(running, **fields)
    top_k = fields.get("top_k") or candidates_of(loaded, running.service.settings.serving)
    direct = loaded.retrieve(QUESTION, top_k)
    names = ("passage_id", "document_id", "rank", "retriever")
    assert [[passage[name] for name in names] for passage in result["passages"]] == [
        [getattr(candidate, name) for name in names] for candidate in direct
    ]
    for name in ("retriever_score", "dense_score", "lexical_score"):
        scores = [getattr(candidate, name) for candidate in direct]
        assert [passage[name] for passage in result["passages"]] == pytest.approx(scores, abs=1e-6)
    assert [passage["text"] for passage in result["passages"]] == [loaded.passage(one).text for one in direct]
    assert result["contract_version"] == CONTRACT_VERSION
    assert result["versions"]["index_version"] == running.release.index_version


def test_labels_filter_inside_the_search(running: Running) -> None:
    assert SECRET not in str(retrieve(running, KEY_QUESTION, top_k=1000))
    assert SECRET in str(retrieve(running, KEY_QUESTION, labels=[STAFF]))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": " "}, "query"),
        ({"query": "a" * 4001}, "query"),
        ({"query": "a", "top_k": 0}, "top_k"),
        ({"query": "a", "top_k": 1001}, "top_k"),
        ({"query": "a", "documents": ["b"]}, "documents"),
    ],
)
def test_what_is_out_of_bounds_is_refused(running: Running, body: dict[str, Any], param: str) -> None:
    response = running.client.post("/v1/retrieve", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)


def test_it_needs_the_key(running: Running) -> None:
    assert running.stranger.post("/v1/retrieve", json={"query": QUESTION}).status_code == 401
