"""What stands in front of every route, on the whole app: the key, the size of the body, the trace."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from models.serving.api_keys import KeyCheck, caller_name
from models.settings import ServingSettings
from services.auth import OPEN_PATHS, LimitBody
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, KEY, Service, service_in
from tests.services.scripted_bundle import Loader
from tests.small_bundle import small_settings

BODY = {"model": "champion", "query": "how is it oiled", "documents": ["a", "b"]}
LIMIT = 2000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An app that takes small bodies only."""
    folder = tmp_path_factory.mktemp("auth")
    settings = small_settings(folder, serving={"max_request_bytes": LIMIT, "poll_seconds": 3600})
    with service_in(folder, settings, Loader()) as built:
        release_bundle(built.ledger, "b1")
        yield built


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    """A client without a key."""
    with TestClient(service.app, raise_server_exceptions=False) as stranger:
        yield stranger


def call(app: FastAPI, path: str, parts: list[bytes], headers: dict[str, str]) -> tuple[list[Message], int]:
    """Send a request as a server does, part by part; the app's messages, and how many parts it took."""
    sent: list[Message] = []
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        if taken > len(parts):  # the caller waits for its answer
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts[taken - 1], "more_body": taken < len(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    asyncio.run(app(scope, receive, send))
    return sent, taken


def test_a_request_without_the_key_is_refused_with_how_to_send_it(client: TestClient) -> None:
    response = client.post("/v2/rerank", json=BODY)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in response.json()["message"]


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        "Bearer ",
        "Bearer",
        "",
        KEY,
        f"Basic {KEY}",
        f"Token {KEY}",
        "Bearer \xe9",
    ],
)
def test_a_wrong_key_is_refused(client: TestClient, value: str) -> None:
    response = client.post("/v2/rerank", json=BODY, headers={"Authorization": value.encode("latin-1")})  # pyright: ignore[reportArgumentType]
    assert response.status_code == 401
    assert KEY not in response.text


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_the_key_opens(client: TestClient, value: str) -> None:
    assert client.post("/v2/rerank", json=BODY, headers={"Authorization": value}).status_code == 200


def test_only_health_and_metrics_are_open(client: TestClient, service: Service) -> None:
    routes = iter_route_contexts(service.app.routes)
    paths = {(str(route.path), method) for route in routes for method in route.methods or ()}
    assert {"/health", "/health/ready", "/metrics", "/v2/rerank", "/v1/answer"} <= {path for path, _ in paths}
    opened = {path for path, method in paths if client.request(method, path).status_code != 401}
    assert opened == OPEN_PATHS


@pytest.mark.parametrize(
    "path", ["/unknown", "/health/", "/HEALTH", "/metrics/../v1/answer", "//health", "/docs", "/redoc"]
)
def test_a_stranger_does_not_learn_which_paths_exist(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 401


def test_keys_are_compared_by_digest_in_constant_time(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def spy(left: Any, right: Any) -> bool:
        compared.append((left, right))
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    for key in (KEY, KEY[:-1], "x", "y" * 5000):
        client.post("/v2/rerank", json=BODY, headers={"Authorization": f"Bearer {key}"})
    assert len(compared) == 4
    assert {len(side) for pair in compared for side in pair} == {32}


def test_the_running_service_does_not_keep_the_key(service: Service) -> None:
    check: KeyCheck = service.app.state.context.key
    assert KEY not in repr(vars(check))


def test_the_caller_is_recorded_under_a_name_that_is_not_the_key(client: TestClient, service: Service) -> None:
    response = client.post("/v2/rerank", json=BODY, headers=AUTHORIZED).json()
    record = client.get(f"/v1/decisions/{response['id']}", headers=AUTHORIZED).json()
    assert record["caller"] == caller_name(KEY)
    assert KEY not in str(record)


def test_nothing_of_a_body_is_read_without_the_key(service: Service, client: TestClient) -> None:
    sent, taken = call(service.app, "/v2/rerank", [b"x" * 100] * 50, {})
    assert sent[0]["status"] == 401
    assert taken == 0


def test_a_body_that_declares_too_much_is_refused_unread(service: Service, client: TestClient) -> None:
    sent, taken = call(service.app, "/v2/rerank", [b"x"] * 50, {**AUTHORIZED, "Content-Length": str(LIMIT + 1)})
    assert sent[0]["status"] == 413
    assert taken == 0


@pytest.mark.parametrize(
    "declared", [{}, {"Content-Length": "10"}, {"Content-Length": "-5"}, {"Content-Length": "many"}]
)
def test_a_body_is_read_up_to_the_limit_whatever_it_declares(
    service: Service, client: TestClient, declared: dict[str, str]
) -> None:
    sent, taken = call(service.app, "/v2/rerank", [b"x" * 100] * 1000, {**AUTHORIZED, **declared})
    assert sent[0]["status"] == 413
    assert b"serving.max_request_bytes" in sent[1]["body"]
    assert taken == LIMIT // 100 + 1


def test_a_body_of_exactly_the_limit_passes(client: TestClient) -> None:
    start = b'{"model":"champion","query":"q","documents":["'
    body = start + b"d" * (LIMIT - len(start) - 3) + b'"]}'
    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    assert len(body) == LIMIT
    assert client.post("/v2/rerank", content=body, headers=headers).status_code == 200
    assert client.post("/v2/rerank", content=body + b" ", headers=headers).status_code == 413


def test_a_body_in_many_parts_is_put_together(service: Service, client: TestClient) -> None:
    body = b'{"model":"champion","query":"q","documents":["one","two"]}'
    parts = [body[index : index + 7] for index in range(0, len(body), 7)]
    sent, taken = call(service.app, "/v2/rerank", parts, {**AUTHORIZED, "Content-Type": "application/json"})
    assert sent[0]["status"] == 200
    assert taken >= len(parts)


def test_a_client_that_leaves_while_sending_gets_no_answer_and_is_counted(service: Service, client: TestClient) -> None:
    sent: list[Message] = []
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v2/rerank", "headers": headers, "query_string": b""}
    asyncio.run(service.app(scope, receive, send))
    assert sent == []
    assert 'status="499"' in client.get("/metrics").text


@pytest.mark.parametrize("headers", [{}, AUTHORIZED])
def test_websockets_are_closed_before_they_open(client: TestClient, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/v2/rerank", headers=headers):
        pass
    assert closed.value.code == 1008


def test_each_answer_has_a_trace_of_its_own_and_takes_the_callers(client: TestClient) -> None:
    traces = [client.get(path).headers["X-Trace-Id"] for path in ("/health", "/health", "/v1/answer", "/metrics")]
    assert len(set(traces)) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)
    given = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = {"traceparent": f"00-{given}-00f067aa0ba902b7-01"}
    response = client.post("/v2/rerank", json=BODY, headers={**AUTHORIZED, **parent})
    assert response.headers["X-Trace-Id"] == given
    record = client.get(f"/v1/decisions/{response.json()['id']}", headers=AUTHORIZED).json()
    assert record["trace_id"] == given
    bad = client.get("/health", headers={"traceparent": "00-<script>-1-01"})
    assert re.fullmatch("[0-9a-f]{32}", bad.headers["X-Trace-Id"])
    for zeros in ("0" * 32, "0" * 31 + "1"):
        parent = {"traceparent": f"00-{zeros}-00f067aa0ba902b7-01"}
        taken = client.get("/health", headers=parent).headers["X-Trace-Id"] == zeros
        assert taken == (zeros != "0" * 32), "W3C Trace Context: all zeros are invalid"


def limited(receive: Any, **settings: Any) -> Any:
    """What `LimitBody` lets through of two requests at once: the messages to each."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def go() -> list[list[Message]]:
        limit = LimitBody(app, ServingSettings(**settings))
        answers: list[list[Message]] = [[], []]

        async def ask(number: int) -> None:
            async def send(message: Message) -> None:
                answers[number].append(message)

            scope = {"type": "http", "path": "/v2/rerank", "headers": [], "method": "POST"}
            await limit(scope, receive, send)

        for _ in range(2):  # what was held is given back
            answers[:] = [], []
            await asyncio.gather(ask(0), ask(1))
        return answers

    return asyncio.run(go())


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def receive() -> Message:
        return await asyncio.Event().wait()  # type: ignore[return-value]  # never returns

    for start, body in limited(receive, request_timeout_s=0.05):
        assert start["status"] == 408
        assert (b"connection", b"close") in start["headers"]
        assert b"serving.request_timeout_s" in body["body"]


def test_bodies_that_are_answered_at_once_share_a_limit() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 600, "more_body": False}

    first, second = limited(receive, max_request_bytes=1000, max_held_bytes=1000)
    assert (first[0]["status"], second[0]["status"]) == (200, 503)
    assert (b"retry-after", b"1") in second[0]["headers"]
    assert b"serving.max_held_bytes" in second[1]["body"]
