"""/v1/reranking as Mixedbread's clients know it."""

from __future__ import annotations

from tests.services.conftest import Running
from tests.services.dialects.test_union import QUERY, TEXTS


def test_input_is_ranked_into_data(running: Running) -> None:
    body = {"model": "champion", "query": QUERY, "input": TEXTS, "top_k": 3, "return_input": True}
    answer = running.client.post("/v1/reranking", json=body).json()
    v2 = running.rerank(QUERY, TEXTS, top_n=3)["results"]
    assert [row["index"] for row in answer["data"]] == [result["index"] for result in v2]
    assert all(row["input"] == TEXTS[row["index"]] for row in answer["data"])
    assert (answer["object"], answer["top_k"], answer["return_input"]) == ("list", 3, True)


def test_inputs_may_be_objects_and_all_come_back(running: Running) -> None:
    body = {"query": QUERY, "input": [{"text": "Oil the loom."}, {"body": "x", "title": "y"}], "rank_fields": ["text"]}
    refused = running.client.post("/v1/reranking", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "input.1")
    answer = running.client.post("/v1/reranking", json={**body, "rank_fields": ["text", "body"]}).json()
    assert sorted(row["index"] for row in answer["data"]) == [0, 1]
    assert not any("input" in row for row in answer["data"])
