"""/v1/rerank as Cohere v1, Jina, Voyage and vLLM ask and read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.services.conftest import Running

QUERY = "how is the loom oiled"
TEXTS = ["Mice stay away from a dry room.", "Oil the loom every week.", "", "水 🧽 e\u0301", "soda " * 500]


def ask(running: Running, path: str = "/v1/rerank", **fields: Any) -> Any:
    response = running.client.post(path, json={"model": "champion", "query": QUERY, "documents": TEXTS, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def order(results: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    return [(result["index"], pytest.approx(result["relevance_score"], abs=1e-6)) for result in results]


def test_it_ranks_as_cohere_v2_does_and_drops_nothing(running: Running) -> None:
    union, v2 = ask(running), running.rerank(QUERY, TEXTS)
    assert order(union["results"]) == order(union["data"]) == order(v2["results"])
    assert sorted(result["index"] for result in union["results"]) == list(range(len(TEXTS)))
    assert (union["object"], union["model"], union["meta"]["api_version"]["version"]) == ("list", "champion", "1")
    assert union["usage"]["total_tokens"] == union["usage"]["prompt_tokens"]
    assert union["meta"]["decision_id"] == union["id"]
    record = running.client.get(f"/v1/decisions/{union['id']}").json()
    assert (record["endpoint"], record["query"]) == ("/v1/rerank", QUERY)


def test_documents_come_back_as_objects_unless_told_otherwise(running: Running) -> None:
    assert all(result["document"] == {"text": TEXTS[result["index"]]} for result in ask(running)["results"])
    assert not any("document" in result for result in ask(running, return_documents=False)["results"])


@pytest.mark.parametrize(
    ("asked", "count", "names"),
    [
        ({"top_n": 2}, 2, {"results"}),
        ({"top_n": 0}, len(TEXTS), {"results"}),
        ({"top_k": 3}, 3, {"results", "data"}),
        ({"top_n": 500}, len(TEXTS), {"results"}),
    ],
)
def test_results_are_cut_only_when_asked(running: Running, asked: dict[str, Any], count: int, names: set[str]) -> None:
    answer = ask(running, **asked)
    assert {"results", "data"} & set(answer) == names
    assert order(answer["results"]) == order(ask(running)["results"])[:count]


def test_documents_may_be_objects(running: Running) -> None:
    documents = [TEXTS[0], {"text": TEXTS[1], "page": 3}, {"text": ""}]
    assert order(ask(running, documents=documents)["results"]) == order(
        ask(running, documents=[*TEXTS[:2], ""])["results"]
    )
    fields = [{"title": "Loom", "body": "Oil it.", "text": "not ranked"}, {"body": "Dry room."}]
    answer = ask(running, documents=fields, rank_fields=["title", "body"])
    texts = {result["index"]: result["document"]["text"] for result in answer["results"]}
    assert texts == {0: "title: Loom\nbody: Oil it.", 1: "Dry room."}


@pytest.mark.parametrize("document", [{}, {"text": None}, {"image": "x"}, 3, None, ["a"], "\ud800", {"text": "\ud800"}])
def test_a_document_without_a_text_is_refused_by_its_place(running: Running, document: Any) -> None:
    response = running.client.post(
        "/v1/rerank",
        content=json.dumps({"query": QUERY, "documents": ["a", document]}),
        headers={"Content-Type": "application/json"},
    )
    body = response.json()
    assert response.status_code == 422
    assert body["error"]["param"] == "documents.1"
    assert body["message"] == body["detail"] == body["error"]["message"]


def test_max_tokens_per_doc_reads_the_beginning_alone(running: Running) -> None:
    beginning = "Oil the loom every week."
    tails = [f"{beginning} Wash the hay baler with soda.", f"{beginning} Mice stay away."]
    whole = ask(running, documents=[*tails, beginning])["results"]
    assert len({result["relevance_score"] for result in whole}) == 3
    cut = ask(running, documents=[*tails, beginning], max_tokens_per_doc=6)["results"]
    scores = [result["relevance_score"] for result in cut]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)
    assert {result["document"]["text"] for result in cut} == {*tails, beginning}


def test_without_truncation_a_document_that_is_too_long_is_refused(running: Running) -> None:
    assert ask(running, documents=TEXTS[:4], truncation=False)["results"]
    response = running.client.post(
        "/v1/rerank", json={"query": QUERY, "documents": TEXTS, "truncation": False, "model": "champion"}
    )
    assert (response.status_code, response.json()["error"]["param"]) == (422, "documents.4")
    assert "longer than" in response.json()["detail"]


def test_raw_scores_order_as_the_probabilities_do(running: Running) -> None:
    raw = ask(running, use_activation=False)["results"]
    assert [result["index"] for result in raw] == [result["index"] for result in ask(running)["results"]]
    assert any(not 0 <= result["relevance_score"] <= 1 for result in raw)


def test_what_is_ignored_is_said(running: Running) -> None:
    warnings = ask(running, max_chunks_per_doc=3, priority=2)["meta"]["warnings"]
    assert "ignored fields: max_chunks_per_doc" in warnings
    assert any(text.startswith("priority is not applied") for text in warnings)


def test_rerank_of_documents_is_the_same(running: Running) -> None:
    assert order(ask(running, "/rerank")["results"]) == order(ask(running)["results"])


def test_the_time_budget_holds_here_too(running: Running) -> None:
    answer = ask(running, timeout_ms=0.001)
    assert answer["meta"]["degraded"] is True
    assert len(answer["results"]) == len(TEXTS)
