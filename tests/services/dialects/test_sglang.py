"""/sglang/v1/rerank as SGLang's clients know it."""

from __future__ import annotations

from tests.services.conftest import Running
from tests.services.dialects.test_union import QUERY, TEXTS


def test_the_answer_is_a_bare_array_with_documents(running: Running) -> None:
    rows = running.client.post(
        "/sglang/v1/rerank", json={"model": "champion", "query": QUERY, "documents": TEXTS}
    ).json()
    assert all(set(row) == {"score", "document", "index"} for row in rows)
    assert [row["index"] for row in rows] == [result["index"] for result in running.rerank(QUERY, TEXTS)["results"]]
    assert all(row["document"] == TEXTS[row["index"]] for row in rows)
    body = {"query": QUERY, "documents": TEXTS, "return_documents": False, "top_n": 1}
    assert [set(row) for row in running.client.post("/sglang/v1/rerank", json=body).json()] == [{"score", "index"}]


def test_errors_are_flat(running: Running) -> None:
    response = running.client.post("/sglang/v1/rerank", json={"query": QUERY, "documents": TEXTS, "model": "other"})
    assert response.status_code == 404
    assert (response.json()["object"], response.json()["code"]) == ("error", 404)
