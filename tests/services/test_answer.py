"""POST /v1/answer and GET /v1/decisions/{id} over the small deployment."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from models.contracts.messages import Decision
from models.contracts.tiers import MODEL_TIERS
from models.serving.answer import NO_ANSWER
from models.serving.batching import Claim
from models.serving.loaded_bundle import LoadedBundle
from models.serving.protocol import candidates_of
from services.deadline import Deadline
from services.lanes import Bypass
from services.routes.answer import _Question, parts_of
from services.schemas import AnswerRequest
from tests.services.conftest import Running
from tests.small_bundle import BUDGET_MS, KEY_QUESTION, QUESTION, SECRET, STAFF, Handbook, Small, in_force

ALSO_ASKED = [
    "who sweeps bench 9 of the workshop",
    "how do I clean the loom",
    "where does the hay baler stay in winter",
]


def passage_ids(result: Any) -> list[str]:
    return [passage["passage_id"] for passage in result["passages"]]


@pytest.mark.parametrize("question", [QUESTION, *ALSO_ASKED])
def test_every_citation_quotes_the_document_where_it_says(running: Running, question: str) -> None:
    result = running.answer(question)
    assert result["citations"]
    for citation in result["citations"]:
        text = Handbook().text_of(citation["document_id"])
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert citation["passage_id"] in passage_ids(result)
        assert citation["quote"] in result["answer"]
    marks = [int(mark) for mark in re.findall(r"\[(\d+)\]", result["answer"])]
    assert marks == list(range(1, len(result["citations"]) + 1))


def test_offsets_count_from_the_start_of_the_document_not_of_the_passage(running: Running) -> None:
    result = running.answer("who sweeps bench 9 of the workshop")
    later = [citation for citation in result["citations"] if citation["document_id"] == "rules"]
    assert later
    assert max(citation["start"] for citation in later) > 200


def test_the_answer_comes_from_the_edition_in_force(running: Running) -> None:
    result = running.answer(QUESTION)
    assert result["citations"][0]["document_id"] == f"water filter/cleaning/{in_force('water filter', 'cleaning')}"


def test_the_ranking_is_that_of_the_bundle(running: Running, loaded: LoadedBundle) -> None:
    result = running.answer(QUESTION)
    candidates = loaded.retrieve(QUESTION, candidates_of(loaded, running.service.settings.serving))
    direct = loaded.rank_candidates(QUESTION, candidates, BUDGET_MS)
    assert passage_ids(result) == [item.passage_id for item in direct.items]
    assert [p["score"] for p in result["passages"]] == pytest.approx([item.score for item in direct.items], abs=1e-6)
    assert [p["rank"] for p in result["passages"]] == list(range(1, len(direct.items) + 1))
    assert result["versions"] == {
        name: getattr(running.release, name)
        for name in ("release_id", "bundle_version", "model_version", "index_version", "corpus_version")
    }


@pytest.mark.parametrize("labels", [[], ["guests"], ["staf", "Staff", "staff "]])
def test_a_labelled_passage_is_neither_shown_nor_quoted_to_others(
    running: Running, small: Small, labels: list[str]
) -> None:
    result = running.answer(KEY_QUESTION, labels=labels, top_k=1000, max_passages=1000)
    passages = small.artifacts["corpus/passages"].read_table("passages.parquet")
    readable = passages[passages["access"].map(len) == 0]
    assert len(readable) == len(passages) - 1
    assert sorted(passage_ids(result)) == sorted(readable["passage_id"])
    assert SECRET not in str(result)


def test_a_labelled_passage_is_found_by_who_holds_the_label(running: Running) -> None:
    result = running.answer(KEY_QUESTION, labels=["guests", STAFF])
    assert SECRET in str(result["citations"])
    assert SECRET in [passage["text"] for passage in result["passages"]]


def test_how_many_are_retrieved_and_returned_is_the_callers_choice(running: Running) -> None:
    assert len(running.answer(QUESTION)["passages"]) == running.service.settings.serving.candidates
    assert len(running.answer(QUESTION, top_k=3)["passages"]) == 3
    assert len(running.answer(QUESTION, top_k=12, max_passages=5)["passages"]) == 5
    assert len(running.answer(QUESTION, top_k=12)["passages"]) == 10
    assert len(running.answer(QUESTION, top_k=1)["passages"]) == 1


def test_without_time_the_first_stage_answers(running: Running) -> None:
    response = running.client.post("/v1/answer", json={"query": QUESTION, "timeout_ms": 0.001})
    result = response.json()
    assert response.status_code == 200
    assert result["degraded"] is True
    assert {passage["tier"] for passage in result["passages"]} == {"lean"}
    assert result["degraded_reason"] == "budget: the time budget has no room for the models"
    assert response.headers["X-Degraded"] == "true"
    assert result["citations"]


def test_in_a_hurry_the_passages_come_alone_and_what_was_retrieved_is_not_retrieved_again(
    loaded: LoadedBundle, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = _Question(AnswerRequest(query=QUESTION), small.settings, Deadline(BUDGET_MS))
    whole = question.answer(loaded, Claim())
    monkeypatch.setattr(LoadedBundle, "retrieve", lambda *_: pytest.fail("retrieved again"))
    late = Bypass("late", "its time ran out")
    hurried, unhurried = (question.answer_without_models(loaded, late, hurry) for hurry in (True, False))
    assert [item.passage_id for item in hurried.candidates] == [item.passage_id for item in whole.candidates]
    assert (hurried.answer.answer, hurried.answer.citations) == ("", [])
    assert (hurried.answer.generation.kind, hurried.answer.generation.reason) == (
        "passages_only",
        "late: its time ran out",
    )
    assert (hurried.ranking.degraded, hurried.ranking.degraded_reason) == (True, "late: its time ran out")
    assert hurried.passages
    assert unhurried.answer.citations


def test_a_question_about_something_else_is_not_answered(running: Running) -> None:
    result = running.answer("xylophone quartet")
    assert result["answer"] == NO_ANSWER
    assert result["citations"] == []
    assert result["generation"]["kind"] == "no_answer"
    assert result["generation"]["reason"].startswith("score: the best passage has ")
    assert result["passages"]
    record = running.client.get(f"/v1/decisions/{result['decision_id']}").json()
    assert record["generation"] == result["generation"]


def test_stages_are_timed_once_each_and_fit_into_the_total(running: Running) -> None:
    stage_ms = running.answer(QUESTION)["stage_ms"]
    assert set(stage_ms) == {"queue", "retrieve", *(tier.name for tier in MODEL_TIERS), "answer", "total"}
    assert all(milliseconds >= 0 for milliseconds in stage_ms.values())
    parts = sum(milliseconds for stage, milliseconds in stage_ms.items() if stage != "total")
    assert parts <= stage_ms["total"] + 0.05  # Each is rounded to a hundredth.


def events_of(response: Any) -> list[tuple[str, Any]]:
    """Names and data of the server-sent events of a response."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    parts = [part.split("\n") for part in response.text.removesuffix("\n\n").split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


@pytest.mark.parametrize(
    "asked", [{"json": {"query": QUESTION, "stream": True}}, {"headers": {"Accept": "text/event-stream"}}]
)
def test_a_streamed_answer_has_the_passages_first_and_is_the_same(running: Running, asked: dict[str, Any]) -> None:
    events = events_of(running.client.post("/v1/answer", **{"json": {"query": QUESTION}, **asked}))
    names = [name for name, _ in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("passages", "done", {"delta"})
    done, whole = events[-1][1], running.answer(QUESTION)
    assert events[0][1]["passages"] == done["passages"]
    assert "".join(data["text"] for name, data in events if name == "delta") == done["answer"] == whole["answer"]
    assert [name for name in names if name == "delta"] == ["delta"] * len(done["citations"])
    assert done["citations"] == whole["citations"]
    record = running.client.get(f"/v1/decisions/{done['decision_id']}").json()
    assert (record["answer"], record["generation"]) == (done["answer"], done["generation"])


def test_a_streamed_question_that_nothing_answers_is_told_so(running: Running) -> None:
    events = events_of(running.client.post("/v1/answer", json={"query": "xylophone quartet", "stream": True}))
    assert [name for name, _ in events] == ["passages", "delta", "done"]
    assert (events[1][1]["text"], events[2][1]["generation"]["kind"]) == (NO_ANSWER, "no_answer")


def test_what_is_refused_before_the_stream_is_a_plain_error(running: Running) -> None:
    response = running.client.post("/v1/answer", json={"query": " ", "stream": True})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")


def test_what_fails_inside_the_stream_is_an_event_without_the_inside(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a path of ours")

    monkeypatch.setattr("services.routes.answer.decide", fail)
    events = events_of(running.client.post("/v1/answer", json={"query": QUESTION, "stream": True}))
    assert [name for name, _ in events] == ["passages", "error"]
    assert events[1][1]["error"]["code"] == "internal_error"
    assert "a path of ours" not in str(events)


@pytest.mark.parametrize(
    ("answer", "citations", "parts"),
    [
        ("A. [1] B. [2]", 2, ["A. [1]", " B. [2]"]),
        ("It says [2] here. [1] B. [2] tail", 2, ["It says [2] here. [1]", " B. [2]", " tail"]),
        ("No marks.", 0, ["No marks."]),
        ("No marks.", 2, ["No marks."]),
        ("", 0, []),
    ],
)
def test_the_parts_of_an_answer_are_all_of_it(answer: str, citations: int, parts: list[str]) -> None:
    assert parts_of(answer, citations) == parts


def test_the_decision_is_stored_and_returned_whole(running: Running) -> None:
    response = running.client.post("/v1/answer", json={"query": QUESTION, "labels": [STAFF]})
    result = response.json()
    record = Decision.model_validate(running.client.get(f"/v1/decisions/{result['decision_id']}").json())
    assert response.headers["X-Decision-Id"] == record.decision_id
    assert response.headers["X-Trace-Id"] == record.trace_id
    assert (record.endpoint, record.query, record.answer) == ("/v1/answer", QUESTION, result["answer"])
    assert [citation.model_dump() for citation in record.citations] == result["citations"]
    assert sorted(candidate["rank"] for candidate in record.candidates) == list(range(1, 9))
    assert all({"dense_score", "lexical_score", "retriever_score"} <= set(item) for item in record.candidates)
    assert [entry["passage_id"] for entry in record.ranking] == passage_ids(result)
    for entry in record.ranking:
        assert record.candidates[entry["index"]]["passage_id"] == entry["passage_id"]
    assert [(e["score"], e["tier"]) for e in record.ranking] == [(p["score"], p["tier"]) for p in result["passages"]]
    assert record.release_id == running.release.release_id
    assert {stage: round(ms, 2) for stage, ms in record.stage_ms.items()} == result["stage_ms"]


def test_a_decision_is_for_who_has_the_key(running: Running) -> None:
    result = running.answer(QUESTION)
    assert running.stranger.get(f"/v1/decisions/{result['decision_id']}").status_code == 401


@pytest.mark.parametrize("name", ["x" * 32, "0" * 31, "0" * 33, "A" * 32, "%2e%2e", "0" * 31 + "%00", "' OR 1=1 --"])
def test_an_id_of_another_form_is_refused(running: Running, name: str) -> None:
    response = running.client.get(f"/v1/decisions/{name}")
    assert response.status_code in (404, 422)
    assert response.json()["error"]["code"] in ("invalid_request", "not_found")
