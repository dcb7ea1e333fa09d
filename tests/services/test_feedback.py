"""POST /v1/feedback over the small deployment."""

from __future__ import annotations

from typing import Any

import pytest

from models.records import feedback
from tests.services.conftest import Running
from tests.small_bundle import QUESTION


@pytest.fixture
def answered(running: Running) -> Any:
    return running.answer(QUESTION)


def send(running: Running, decision_id: str, **fields: Any) -> Any:
    return running.client.post("/v1/feedback", json={"decision_id": decision_id, **fields})


def said(running: Running, decision_id: str) -> list[tuple[str | None, str, float]]:
    """What is stored of a decision."""
    stored = feedback.of_decision(running.service.database, decision_id)
    return [(one.passage_id, one.kind, one.value) for one in stored]


def test_it_is_stored_once_and_the_last_value_counts(running: Running, answered: Any) -> None:
    decision_id, passage_id = answered["decision_id"], answered["passages"][1]["passage_id"]
    cited = answered["citations"][0]["passage_id"]
    click = {"passage_id": passage_id, "kind": "click"}
    first = send(running, decision_id, **click)
    assert first.status_code == 200
    assert first.json() == {"decision_id": decision_id, "value": 1.0, **click}
    assert send(running, decision_id, **click).json() == first.json()
    send(running, decision_id, kind="thumb", value=1)
    send(running, decision_id, kind="thumb", value=-1)
    send(running, decision_id, passage_id=cited, kind="citation", value=0.5)
    assert sorted(said(running, decision_id), key=str) == sorted(
        [(passage_id, "click", 1.0), (None, "thumb", -1.0), (cited, "citation", 0.5)], key=str
    )


def test_it_may_be_about_a_ranking_of_the_callers_texts(running: Running) -> None:
    decision_id = running.rerank("oil", ["Oil the saw.", "Mice."])["id"]
    record = running.client.get(f"/v1/decisions/{decision_id}").json()
    passage_id = record["ranking"][0]["passage_id"]
    assert send(running, decision_id, passage_id=passage_id, kind="click").status_code == 200
    assert said(running, decision_id) == [(passage_id, "click", 1.0)]


def test_a_decision_that_is_not_stored_is_unknown(running: Running) -> None:
    response = send(running, "0" * 32, kind="thumb")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "decision_not_found")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"kind": "click"}, "passage_id"),
        ({"kind": "citation"}, "passage_id"),
        ({"kind": "click", "passage_id": "of/another:0"}, "passage_id"),
        ({"kind": "thumb", "passage_id": "\x00"}, "passage_id"),
        ({"kind": "thumb", "passage_id": ""}, "passage_id"),
        ({"kind": "stars"}, "kind"),
        ({"kind": "thumb", "value": 1.5}, "value"),
        ({"kind": "thumb", "value": "NaN"}, "value"),
        ({"kind": "thumb", "note": "nice"}, "note"),
    ],
)
def test_what_the_decision_did_not_show_and_what_is_out_of_bounds_is_refused(
    running: Running, answered: Any, fields: dict[str, Any], param: str
) -> None:
    response = send(running, answered["decision_id"], **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)
    assert said(running, answered["decision_id"]) == []


def test_a_citation_is_one_that_the_answer_has(running: Running, answered: Any) -> None:
    cited = {citation["passage_id"] for citation in answered["citations"]}
    other = next(p["passage_id"] for p in answered["passages"] if p["passage_id"] not in cited)
    response = send(running, answered["decision_id"], passage_id=other, kind="citation")
    assert response.status_code == 422
    assert "cited" in response.json()["message"]


def test_it_needs_the_key(running: Running, answered: Any) -> None:
    body = {"decision_id": answered["decision_id"], "kind": "thumb"}
    assert running.stranger.post("/v1/feedback", json=body).status_code == 401
    assert said(running, answered["decision_id"]) == []
