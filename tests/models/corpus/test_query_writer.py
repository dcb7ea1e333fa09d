"""The client of a language model, against a server that speaks the protocol."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from models.corpus.query_writer import QueryWriter
from models.errors import RerankOpsError, SettingsError, SourceError
from models.settings import QueryWriterSettings
from tests.chat_server import ChatServer, chat_server

KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def ask(server_url: str, waits: list[float], **changes: object) -> str:
    settings = QueryWriterSettings.model_validate({"url": server_url, "model": "small", "attempts": 3, **changes})
    writer = QueryWriter(settings, waits.append)
    try:
        return writer.ask("Write a query.", "Passage: Oil the saw.\nQuery:")
    finally:
        writer.close()


def test_it_asks_as_the_protocol_has_it(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERY_WRITER_API_KEY", KEY)
    assert ask(server.url, [], temperature=0.5).startswith('Query: "what about Oil the saw.')
    (request,) = server.requests
    assert (request["path"], request["model"], request["temperature"]) == ("/v1/chat/completions", "small", 0.5)
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert server.keys == [f"Bearer {KEY}"]
    monkeypatch.delenv("QUERY_WRITER_API_KEY")
    ask(server.url, [])
    assert server.keys[1] is None


def test_what_may_pass_is_tried_again_and_when_the_server_says(server: ChatServer) -> None:
    server.statuses = [503, 429]
    waits: list[float] = []
    assert ask(server.url, waits)
    assert waits == [1.0, 7.0], "a second, then what Retry-After says"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 404, 302])
def test_a_refusal_is_not_tried_again_and_shows_no_key(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    monkeypatch.setenv("QUERY_WRITER_API_KEY", KEY)
    server.statuses = [status]
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SettingsError, match=f"status {status}") as raised:
        ask(server.url, [])
    assert len(server.requests) == 1
    assert KEY not in str(raised.value) + caplog.text


def test_it_gives_up_after_so_many_attempts(server: ChatServer) -> None:
    server.statuses = [500] * 9
    waits: list[float] = []
    with pytest.raises(SourceError, match="after 3 attempts: status 500"):
        ask(server.url, waits)
    assert (len(server.requests), len(waits)) == (3, 2)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(SourceError, match="ConnectError"):
            ask(url, [])


LONG = b'{"choices": [{"message": {"content": "why"}}]}' + b" " * 1_000_000


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {}}]}', LONG])
def test_an_answer_of_another_protocol_is_refused(server: ChatServer, body: bytes) -> None:
    server.body = body
    with pytest.raises(RerankOpsError, match=r"choices\[0\]\.message\.content"):
        ask(server.url, [])
