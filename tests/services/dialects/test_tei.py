"""/rerank for a body of `texts`, and /info, as the clients of text-embeddings-inference know them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.services.conftest import Running
from tests.services.dialects.test_union import QUERY, TEXTS


def ask(running: Running, **fields: Any) -> Any:
    return running.client.post("/rerank", json={"query": QUERY, "texts": TEXTS, **fields})


def test_the_answer_is_a_bare_array_best_first(running: Running) -> None:
    response = ask(running)
    ranks, v2 = response.json(), running.rerank(QUERY, TEXTS)["results"]
    assert [set(rank) for rank in ranks] == [{"index", "score"}] * len(TEXTS)
    assert [rank["index"] for rank in ranks] == [result["index"] for result in v2]
    assert [rank["score"] for rank in ranks] == pytest.approx([r["relevance_score"] for r in v2], abs=1e-6)
    record = running.client.get(f"/v1/decisions/{response.headers['X-Decision-Id']}").json()
    assert record["endpoint"] == "/rerank"


def test_texts_and_raw_scores_come_when_asked_for(running: Running) -> None:
    ranks = ask(running, raw_scores=True, return_text=True).json()
    assert all(rank["text"] == TEXTS[rank["index"]] for rank in ranks)
    probabilities = [rank["score"] for rank in ask(running).json()]
    assert [1 / (1 + math.exp(-rank["score"])) for rank in ranks] == pytest.approx(probabilities, abs=1e-5)


def test_fields_that_others_send_do_no_harm(running: Running) -> None:
    answer = ask(running, truncate=True, truncation_direction="Right", top_n=2, x=1)
    assert len(answer.json()) == 2


@pytest.mark.parametrize(
    ("fields", "status", "error_type", "said"),
    [
        ({"texts": []}, 400, "Empty", "texts"),
        ({"texts": "a"}, 422, "Validation", "texts: "),
        ({"texts": ["a"] * 1001}, 422, "Validation", "serving.max_documents"),
        ({"query": " "}, 422, "Validation", "query: "),
        ({"truncate": False}, 422, "Validation", "texts.4: "),
        ({"truncation_direction": "Left"}, 422, "Validation", "truncation_direction"),
        ({"model": "rerank-v3.5"}, 404, "Validation", "Allowed: champion"),
        ({"timeout_ms": -1}, 422, "Validation", "timeout_ms: "),
    ],
)
def test_a_refusal_has_teis_form(
    running: Running, fields: dict[str, Any], status: int, error_type: str, said: str
) -> None:
    response = ask(running, **fields)
    assert response.status_code == status
    body = response.json()
    assert set(body) == {"error", "error_type"}
    assert body["error_type"] == error_type
    assert said in body["error"]


def test_without_texts_a_refusal_has_the_form_of_v1_rerank(running: Running) -> None:
    for body in ({"query": QUERY}, {"query": QUERY, "documents": [1]}, [], 3):
        response = running.client.post(
            "/rerank", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 422
        assert set(response.json()) == {"message", "detail", "error"}


def test_a_lone_surrogate_is_refused(running: Running) -> None:
    content = json.dumps({"query": QUERY, "texts": ["a", "\ud800"]})
    response = running.client.post("/rerank", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error_type"]) == (422, "Validation")
    assert response.json()["error"].startswith("texts.1: ")


def test_info_names_a_reranker_and_every_limit(running: Running) -> None:
    info = running.client.get("/info").json()
    serving = running.service.settings.serving
    assert "reranker" in info["model_type"]
    assert info["model_id"] == "reranker/7"
    assert info["release_id"] == running.release.release_id
    assert info["max_client_batch_size"] == info["limits"]["max_documents"] == serving.max_documents
    assert info["limits"]["max_request_bytes"] == serving.max_request_bytes
    assert info["limits"]["max_query_characters"] == serving.max_query_characters
    assert info["max_input_length"] > 0
    stranger = running.stranger.get("/info")
    assert (stranger.status_code, set(stranger.json())) == (401, {"error", "error_type"})
