"""POST /v1/answer where a language model writes: behind a real server, and behind one that fails as it is told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.serving.chat_generator import PROMPT_VERSION
from tests.chat_server import ChatServer, chat_server
from tests.language_model import served_language_model, write_language_model
from tests.services.conftest import AUTHORIZED, service_in
from tests.small_bundle import QUESTION, Small, put_in_service

pytestmark = pytest.mark.heavy
SAID = 'It is washed with soda. [1] "Wash the water filter with warm water"'


@contextmanager
def client_of(small: Small, folder: Path, url: str, model: str = "small") -> Iterator[TestClient]:
    """The small deployment with the language model at `url`."""
    generator = {"kind": "chat", "url": url, "model": model}
    settings = small.settings.model_copy(
        update={"generator": small.settings.generator.model_copy(update={**generator, "budget_ms": 60_000.0})}
    )
    with service_in(folder, settings) as service:
        put_in_service(service.ledger, small.first, "7")
        with TestClient(service.app, headers=AUTHORIZED, raise_server_exceptions=False) as client:
            yield client


def answer(client: TestClient, **fields: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Body and record of an answer, and its headers."""
    response = client.post("/v1/answer", json={"query": QUESTION, **fields})
    assert response.status_code == 200, response.text
    body = response.json()
    return body, client.get(f"/v1/decisions/{body['decision_id']}").json(), response.headers


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def test_a_language_model_behind_a_real_server_answers(small: Small, tmp_path: Path) -> None:
    model = write_language_model(tmp_path / "model", SAID)
    with served_language_model(model) as url, client_of(small, tmp_path / "service", url, str(model)) as client:
        body, record, headers = answer(client)
        assert body["answer"] == "It is washed with soda. [1]"
        (citation,) = body["citations"]
        assert citation["quote"] == "Wash the water filter with warm water"
        assert citation["passage_id"] == body["passages"][0]["passage_id"]
        told = {"generator": "chat", "model": str(model), "prompt_version": PROMPT_VERSION, "fallback_reason": ""}
        assert body["generation"] == {"kind": "answer", "reason": "", **told}
        assert (record["answer"], record["citations"]) == (body["answer"], body["citations"])
        assert record["generation"] == body["generation"]
        assert headers["X-Generator"] == "chat"
        assert record["stage_ms"]["generate"] > 0


def test_what_a_model_of_random_weights_writes_is_shown_to_nobody(small: Small, tmp_path: Path) -> None:
    model = write_language_model(tmp_path / "model", None)
    with served_language_model(model) as url, client_of(small, tmp_path / "service", url, str(model)) as client:
        body, record, headers = answer(client)
        assert body["generation"]["generator"] == "extractive"
        assert body["generation"]["fallback_reason"].startswith("citation: ")
        assert body["citations"][0]["quote"] in body["answer"]
        assert record["generation"] == body["generation"]
        assert headers["X-Generator-Fallback"] == body["generation"]["fallback_reason"]
        told = 'rerankops_generated_total{fallback="citation",generator="extractive",kind="answer"} 1.0'
        assert told in client.get("/metrics").text


def test_a_server_that_fails_costs_no_answer(small: Small, tmp_path: Path, server: ChatServer) -> None:
    with client_of(small, tmp_path / "service", server.url) as client:
        server.statuses = [500]
        body, record, _ = answer(client)
        assert body["generation"]["fallback_reason"] == "status: the model's server answered with 500"
        assert (body["generation"]["kind"], body["degraded"]) == ("answer", False)
        assert record["generation"] == body["generation"]


def test_a_question_that_no_passage_answers_by_the_scores_is_not_sent(
    small: Small, tmp_path: Path, server: ChatServer
) -> None:
    with client_of(small, tmp_path / "service", server.url) as client:
        response = client.post("/v1/answer", json={"query": "xylophone quartet"}).json()
        assert response["generation"]["kind"] == "no_answer"
        assert response["generation"]["reason"].startswith("score: ")
        assert server.requests == []


def test_without_time_the_model_is_not_asked(small: Small, tmp_path: Path, server: ChatServer) -> None:
    server.body = json.dumps({"choices": [{"message": {"content": SAID}}]}).encode()
    with client_of(small, tmp_path / "service", server.url) as client:
        body, _, _ = answer(client, timeout_ms=1)
        assert body["generation"]["fallback_reason"].startswith("no_time: ")
        assert server.requests == []
        assert answer(client)[0]["generation"]["generator"] == "chat"
