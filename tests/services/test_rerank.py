"""POST /v2/rerank over the small deployment's trained models."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.contracts.tiers import MODEL_TIERS
from models.serving.api_keys import caller_name
from models.serving.loaded_bundle import LoadedBundle
from services.decision_record import document_id
from tests.services.conftest import KEY, Running
from tests.small_bundle import BUDGET_MS, MACHINES, TASKS, Handbook, in_force, notes

QUERY = "how do I clean the water filter"
WASH = "{note} Wash the {machine} with warm water and 40 grams of soda."
DOCUMENTS = [
    *(
        WASH.format(note=note, machine=machine)
        for machine in ("water filter", "loom", "hay baler")
        for note in reversed(notes(machine, "cleaning"))
    ),
    "Mice stay away from a dry room.",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def indices(observed: Any) -> list[int]:
    return [result["index"] for result in observed["results"]]


def scores(observed: Any) -> list[float]:
    return [result["relevance_score"] for result in observed["results"]]


def test_the_ranking_is_that_of_the_bundle(running: Running, loaded: LoadedBundle) -> None:
    result = running.rerank(QUERY, DOCUMENTS)
    direct = loaded.rank_documents(QUERY, DOCUMENTS, BUDGET_MS)
    assert indices(result) == [item.index for item in direct.items]
    assert scores(result) == pytest.approx([item.score for item in direct.items], abs=1e-6)
    assert result["meta"]["tiers"] == [item.tier for item in direct.items]
    assert result["meta"]["tokens"]["input_tokens"] == direct.tokens
    assert result["meta"]["degraded"] is False
    assert "warnings" not in result["meta"]


def test_what_was_learned_decides_between_editions_of_the_same_words(running: Running) -> None:
    asked = right = 0
    for machine in (name for name, split in MACHINES.items() if split == "test"):
        for task, (_, _, questions) in TASKS.items():
            editions = [f"{machine}, {task}\n{Handbook().text_of(f'{machine}/{task}/{n}')}" for n in (1, 2)]
            result = running.rerank(questions[0].format(machine=machine), editions)
            asked += 1
            right += indices(result)[0] + 1 == in_force(machine, task)
    assert right >= 0.8 * asked, f"{right} of {asked}; guessing gets half"


def test_scores_are_probabilities_that_fall(running: Running) -> None:
    result = running.rerank(QUERY, DOCUMENTS)
    assert scores(result) == sorted(scores(result), reverse=True)
    assert all(0 < score < 1 for score in scores(result))
    assert sorted(indices(result)) == list(range(len(DOCUMENTS)))


def test_top_n_cuts_the_full_ranking(running: Running) -> None:
    whole = running.rerank(QUERY, DOCUMENTS)
    for count in (1, 3, len(DOCUMENTS), 500):
        result = running.rerank(QUERY, DOCUMENTS, top_n=count)
        assert indices(result) == indices(whole)[:count]
        assert scores(result) == pytest.approx(scores(whole)[:count], abs=1e-6)
        assert result["meta"]["tiers"] == whole["meta"]["tiers"][:count]
        assert sum(result["meta"]["tier_counts"].values()) == len(DOCUMENTS)


def test_documents_come_back_when_asked_for(running: Running) -> None:
    observed = running.rerank(QUERY, DOCUMENTS, return_documents=True)
    assert [result["document"]["text"] for result in observed["results"]] == [DOCUMENTS[i] for i in indices(observed)]
    for asked in (None, False):
        assert all(
            "document" not in result for result in running.rerank(QUERY, DOCUMENTS, return_documents=asked)["results"]
        )


def test_the_order_of_the_request_does_not_matter(running: Running) -> None:
    mixed = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    first, second = running.rerank(QUERY, DOCUMENTS), running.rerank(QUERY, mixed)
    assert [DOCUMENTS[index] for index in indices(first)] == [mixed[index] for index in indices(second)]
    assert scores(first) == pytest.approx(scores(second), abs=1e-5)


def test_equal_documents_score_alike_and_stay_in_order(running: Running) -> None:
    result = running.rerank(QUERY, [DOCUMENTS[1], DOCUMENTS[6], DOCUMENTS[1], DOCUMENTS[1]])
    assert indices(result) == [0, 2, 3, 1]
    assert scores(result)[0] == pytest.approx(scores(result)[2], abs=1e-6)


def test_passages_of_the_corpus_rank_by_their_stored_vectors(running: Running, loaded: LoadedBundle) -> None:
    candidates = loaded.retrieve(QUERY, 6)
    texts = [loaded.passage(item).text for item in candidates]
    direct = loaded.rank_documents(QUERY, texts, BUDGET_MS)
    by_place = {item.index: item.dense_score for item in direct.items}
    assert [by_place[index] for index in range(6)] == [item.dense_score for item in candidates]
    assert indices(running.rerank(QUERY, texts)) == [item.index for item in direct.items]


@pytest.mark.parametrize(
    "documents",
    [
        [""],
        ["", "", " "],
        ["\x00", "\u202e\ufeff", "e\u0301" * 50],
        ["水过滤器用温水清洗。", "كيف أنظف المرشح", "🧽🫧" * 30, "ﬃ"],
        ["word " * 50_000, "x" * 200_000, DOCUMENTS[1]],
        [f"line {number}\r\n\t" for number in range(60)],
    ],
    ids=["one empty", "only empty", "control characters", "scripts", "very long", "many"],
)
def test_any_text_is_ranked(running: Running, documents: list[str]) -> None:
    result = running.rerank("how is a filter cleaned? 水 🧽", documents)
    assert sorted(indices(result)) == list(range(len(documents)))
    assert all(math.isfinite(score) for score in scores(result))


def test_a_query_longer_than_the_window_is_cut_and_answered(running: Running) -> None:
    result = running.rerank("clean the water filter " * 170, DOCUMENTS)
    assert sorted(indices(result)) == list(range(len(DOCUMENTS)))


@pytest.mark.parametrize(("route", "fields"), [("rerank", {"model": "champion", "documents": ["a"]}), ("answer", {})])
def test_a_query_beyond_the_limit_is_refused_before_it_is_read(
    running: Running, route: str, fields: dict[str, Any]
) -> None:
    path = {"rerank": "/v2/rerank", "answer": "/v1/answer"}[route]
    asked = [running.client.post(path, json={"query": "x" * count, **fields}) for count in (4000, 4001)]
    assert [response.status_code for response in asked] == [200, 422]
    assert "serving.max_query_characters" in asked[1].json()["message"]


def test_as_many_documents_as_allowed_are_ranked_in_the_time_given(running: Running) -> None:
    documents = [f"Note {number}: oil the loom." for number in range(1000)]
    result = running.rerank("how is the loom oiled", documents, timeout_ms=500)
    assert sorted(indices(result)) == list(range(1000))
    assert result["meta"]["billed_units"]["search_units"] == 10


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=TEXTS.filter(lambda text: bool(text.strip()) and "\x00" not in text),
    documents=st.lists(TEXTS, min_size=1, max_size=9),
    top_n=st.none() | st.integers(1, 12),
    timeout_ms=st.sampled_from([0.01, 5.0, BUDGET_MS]),
)
def test_every_answer_holds_each_index_once(
    running: Running, query: str, documents: list[str], top_n: int | None, timeout_ms: float
) -> None:
    result = running.rerank(query, documents, top_n=top_n, timeout_ms=timeout_ms)
    count = min(len(documents), top_n or len(documents))
    assert len(result["results"]) == len(set(indices(result))) == len(result["meta"]["tiers"]) == count
    assert set(indices(result)) <= set(range(len(documents)))
    assert scores(result) == sorted(scores(result), reverse=True)
    assert sum(result["meta"]["tier_counts"].values()) == len(documents)


@pytest.mark.parametrize("how", ["body", "header"])
def test_without_time_the_answer_is_whole_degraded_and_says_why(running: Running, how: str) -> None:
    body = {"model": "champion", "query": QUERY, "documents": DOCUMENTS}
    if how == "body":
        response = running.client.post(
            "/v2/rerank", json={**body, "timeout_ms": 0.001}, headers={"X-Timeout-Ms": "60000"}
        )
    else:
        response = running.client.post("/v2/rerank", json=body, headers={"X-Timeout-Ms": "0.001"})
    result = response.json()
    assert response.status_code == 200
    assert sorted(indices(result)) == list(range(len(DOCUMENTS)))
    assert result["meta"]["degraded"] is True
    assert set(result["meta"]["tiers"]) == {"lean"}
    reason = result["meta"]["degraded_reason"]
    assert reason == "budget: the time budget has no room for the models"
    assert f"degraded: {reason}" in result["meta"]["warnings"]
    assert response.headers["X-Degraded"] == "true"
    assert response.headers["X-Degraded-Reason"] == reason[:200]
    assert scores(result) == sorted(scores(result), reverse=True)


@pytest.mark.parametrize("header", ["0", "-1", "nan", "inf", "60001", "soon", "1_000", "1e3"])
def test_a_time_budget_that_is_none_is_refused(running: Running, header: str) -> None:
    body = {"model": "champion", "query": QUERY, "documents": DOCUMENTS}
    response = running.client.post("/v2/rerank", json=body, headers={"X-Timeout-Ms": header})
    assert response.status_code == 422
    assert "x-timeout-ms" in response.json()["message"]


@pytest.mark.parametrize("model", ["champion", "reranker", "7"])
def test_the_served_model_has_three_names(running: Running, model: str) -> None:
    result = running.rerank(QUERY, DOCUMENTS, model=model)
    assert (result["meta"]["model_version"], result["meta"]["release_id"]) == ("7", running.release.release_id)


@pytest.mark.parametrize("model", ["6", "07", "Champion", "rerank-v3.5", "previous", "reranker "])
def test_another_model_is_a_404_that_lists_the_names(running: Running, model: str) -> None:
    response = running.client.post("/v2/rerank", json={"model": model, "query": QUERY, "documents": DOCUMENTS})
    assert response.status_code == 404
    assert "champion, reranker, 7" in response.json()["message"]


def test_what_is_accepted_and_not_applied_is_said(running: Running) -> None:
    result = running.rerank(QUERY, DOCUMENTS, priority=3, rank_fields=["text"], stream=False)
    warnings = result["meta"]["warnings"]
    assert any(text.startswith("priority is not applied") for text in warnings)
    assert "ignored fields: rank_fields, stream" in warnings
    assert indices(result) == indices(running.rerank(QUERY, DOCUMENTS))


def test_documents_that_are_cut_are_counted(running: Running) -> None:
    result = running.rerank(QUERY, ["soda " * 500, *DOCUMENTS])
    assert result["meta"]["truncated"] == 1
    assert "1 documents were cut to the model's length" in result["meta"]["warnings"]


def test_stages_are_timed_and_fit_into_the_total(running: Running) -> None:
    stage_ms = running.rerank(QUERY, DOCUMENTS)["meta"]["stage_ms"]
    assert set(stage_ms) == {"queue", "first_stage", *(tier.name for tier in MODEL_TIERS), "total"}
    assert all(milliseconds >= 0 for milliseconds in stage_ms.values())
    parts = sum(milliseconds for stage, milliseconds in stage_ms.items() if stage != "total")
    assert parts <= stage_ms["total"] + 0.05  # Each is rounded to a hundredth.


def test_the_decision_is_stored_without_the_callers_documents(running: Running) -> None:
    response = running.client.post(
        "/v2/rerank", json={"model": "7", "query": QUERY, "documents": DOCUMENTS, "top_n": 2}
    )
    result = response.json()
    record = running.client.get(f"/v1/decisions/{result['id']}").json()
    assert response.headers["X-Decision-Id"] == result["id"] == result["meta"]["decision_id"] == record["decision_id"]
    assert response.headers["X-Release-Id"] == record["release_id"] == running.release.release_id
    assert response.headers["X-Model-Version"] == record["model_version"] == "7"
    assert response.headers["X-Degraded"] == "false"
    assert "X-Degraded-Reason" not in response.headers
    assert record["endpoint"] == "/v2/rerank"
    assert record["caller"] == caller_name(KEY)
    assert record["query"] == QUERY
    assert record["index_version"] == running.release.index_version
    assert record["corpus_version"] == running.release.corpus_version
    assert [candidate["passage_id"] for candidate in record["candidates"]] == [document_id(text) for text in DOCUMENTS]
    assert len(record["ranking"]) == len(DOCUMENTS)
    assert [entry["index"] for entry in record["ranking"]][:2] == indices(result)
    assert [entry["score"] for entry in record["ranking"]][:2] == scores(result)
    assert not any(document in str(record) for document in DOCUMENTS)
