"""What stands before Dagster's web server, over an app that answers everything."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from orchestration.web_guard import WebGuard

TOKEN = "t0ken"
HOST = "127.0.0.1:3000"
MUTATION = "/graphql?query=mutation{launchRun(executionParams:{}){__typename}}"


def client(host: str = HOST, token: str = TOKEN) -> TestClient:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.path}?{request.url.query}")

    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    routes = [WebSocketRoute("/graphql", listen), Route("/{path:path}", answer, methods=["GET", "POST"])]
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(WebGuard(Starlette(routes=routes), TOKEN), f"http://{host}", headers=bearer)


def test_a_client_with_the_token_is_answered() -> None:
    for host in ("127.0.0.1:3000", "localhost:3000", "LOCALHOST:8123", "[::1]:3000", "localhost"):
        assert client(host).post("/graphql").status_code == 200, host
    own = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert client().post("/graphql", headers=own).status_code == 200
    assert client().get("/graphql").status_code == 200, "the page in which queries are written"
    assert client().get("/runs?cursor=1").status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", "t0ken ", "t0ke", "\udcff"])
def test_without_the_token_nothing_is(token: str) -> None:
    headers = {"Authorization": f"Bearer {token}x"} if token.isascii() else {}
    assert client(token="").get("/", headers=headers).status_code == 403
    assert client(token="").get("/", params={"token": token.encode("utf-8", "replace").decode()}).status_code == 403
    assert client(token="").post("/graphql", headers={"Cookie": "rerankops_dev_3000=wrong"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("evil.example", {}),
        ("evil.example:3000", {}),
        ("127.0.0.1.evil.example:3000", {}),
        ("0.0.0.0:3000", {}),
        (HOST, {"Origin": "http://evil.example"}),
        (HOST, {"Origin": "null"}),
        (HOST, {"Origin": "http://127.0.0.1:8080"}),
        (HOST, {"Origin": f"http://{HOST}.evil.example"}),
        (HOST, {"Sec-Fetch-Site": "cross-site"}),
        (HOST, {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_other_hosts_origins_and_sites_are_refused_with_the_token_too(host: str, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        assert client(host).request(method, "/graphql", headers=headers).status_code == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_mutation_in_the_address_is_refused(method: str) -> None:
    for address in (MUTATION, MUTATION.replace("graphql", "graphql/"), "/graphql?x", f"/prefix{MUTATION}"):
        answer = client().request(method, address)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), address


def test_the_address_with_the_token_admits_a_browser() -> None:
    browser = client(token="")
    clicked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = browser.get("/runs", params={"token": TOKEN, "q": "a'\"><script>&b"}, headers=clicked)
    assert answer.status_code == 200
    assert "url='/runs?q=a%27%22%3E%3Cscript%3E%26b'" in answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"rerankops_dev_3000={TOKEN};")
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in cookie.split(";")}
    assert browser.get("/runs").text == "/runs?"
    assert browser.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    other = browser.get("http://127.0.0.1:4000/").status_code
    assert other == 403, "another port is another server, though browsers send the cookie there"


def test_the_page_behind_the_token_is_of_this_server() -> None:
    answer = client(token="").get(f"http://{HOST}//evil.example/?token={TOKEN}")
    assert "url='/evil.example/'" in answer.text


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({}, True),
        ({"Origin": f"http://{HOST}"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Authorization": "Bearer wrong"}, False),
    ],
)
def test_subscriptions_are_guarded_too(headers: dict[str, str], admitted: bool) -> None:
    def listen() -> Any:
        with client().websocket_connect(f"ws://{HOST}/graphql", headers=headers) as socket:
            return socket.receive()

    if admitted:
        assert listen()["type"] == "websocket.close"
    else:
        with pytest.raises(WebSocketDisconnect) as refused:
            listen()
        assert refused.value.code == 1008


def test_a_guard_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="open to every page"):
        WebGuard(Starlette(), "")
