"""/infinity/rerank as infinity's clients know it."""

from __future__ import annotations

import pytest

from tests.services.conftest import Running
from tests.services.dialects.test_union import QUERY, TEXTS


def test_documents_come_back_as_strings(running: Running) -> None:
    body = {"model": "default/not-specified", "query": QUERY, "documents": TEXTS, "return_documents": True, "top_n": 3}
    answer = running.client.post("/infinity/rerank", json=body).json()
    assert (answer["object"], answer["model"]) == ("rerank", "champion")
    assert {"id", "created", "usage"} < set(answer)
    v2 = running.rerank(QUERY, TEXTS, top_n=3)["results"]
    assert [result["document"] for result in answer["results"]] == [TEXTS[result["index"]] for result in v2]
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx(
        [result["relevance_score"] for result in v2], abs=1e-6
    )


def test_without_asking_no_document_comes_back_and_none_is_dropped(running: Running) -> None:
    answer = running.client.post("/infinity/rerank", json={"query": QUERY, "documents": TEXTS, "raw_scores": True})
    results = answer.json()["results"]
    assert sorted(result["index"] for result in results) == list(range(len(TEXTS)))
    assert not any("document" in result for result in results)


def test_errors_are_openais(running: Running) -> None:
    for client, status in ((running.client, 422), (running.stranger, 401)):
        response = client.post("/infinity/rerank", json={"query": QUERY, "documents": []})
        assert response.status_code == status
        assert response.json()["error"]["code"] == status
        assert set(response.json()) == {"error"}
