"""Calls to the service of a deployment, against servers that answer as real ones and proxies do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.errors import RerankOpsError
from models.serving.client import ServiceSlow, ServiceUnavailable, call_service, service_url
from models.settings import Settings
from tests.service_process import free_port
from tests.small_bundle import small_settings

ANSWERS = {
    "/ok": (200, json.dumps({"fine": True}).encode()),
    "/refused": (422, json.dumps({"message": "query: too short"}).encode()),
    "/proxy": (502, b"<html>Bad Gateway</html>"),
    "/list": (500, b"[1, 2]"),
}


class _Answering(BaseHTTPRequestHandler):
    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        status, body = ANSWERS[self.path]
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append({"headers": dict(self.headers), "body": sent})
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[dict[str, Any]]) -> Iterator[Settings]:
    """Settings of a deployment whose service is a server of the test's own."""
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path))
    monkeypatch.delenv("RERANKOPS_API_KEY", raising=False)
    server = HTTPServer(("127.0.0.1", 0), type("Answering", (_Answering,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield small_settings(tmp_path, serving={"port": server.server_port})
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_sends_the_deployments_key_and_json(settings: Settings, seen: list[dict[str, Any]]) -> None:
    assert call_service(settings, "POST", "/ok", {"query": "é"}, headers={"X-Extra": "1"}) == {"fine": True}
    key = (settings.home / "api_key").read_text().strip()
    assert seen[0]["headers"]["Authorization"] == f"Bearer {key}"
    assert seen[0]["headers"]["X-Extra"] == "1"
    assert json.loads(seen[0]["body"]) == {"query": "é"}


def test_a_key_from_the_environment_goes_first(
    settings: Settings, seen: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKOPS_API_KEY", "rk_given")
    call_service(settings, "POST", "/ok")
    assert seen[0]["headers"]["Authorization"] == "Bearer rk_given"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/refused", "/refused answered 422: query: too short"),
        ("/proxy", "/proxy answered 502: Bad Gateway"),
        ("/list", "/list answered 500: Internal Server Error"),
    ],
)
def test_a_refusal_is_told_with_what_the_service_says(settings: Settings, path: str, told: str) -> None:
    with pytest.raises(RerankOpsError) as refused:
        call_service(settings, "POST", path)
    assert refused.value.message == told
    assert not isinstance(refused.value, ServiceUnavailable)


def test_a_service_that_is_slow_is_not_said_to_be_away(settings: Settings) -> None:
    """`rollback` said that no service runs while one loaded the release."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        slow = settings.model_copy(update={"serving": settings.serving.model_copy(update={"port": port})})
        with pytest.raises(ServiceSlow, match="has not answered within 0 s"):
            call_service(slow, "POST", "/v1/release/refresh", timeout_s=0.1)


def test_where_nothing_listens_it_says_how_to_start_it(settings: Settings) -> None:
    port = free_port()
    away = settings.model_copy(update={"serving": settings.serving.model_copy(update={"port": port})})
    with pytest.raises(ServiceUnavailable, match=f"no service answers at http://127.0.0.1:{port}/ok") as raised:
        call_service(away, "POST", "/ok")
    assert "rerankops serve" in raised.value.hint


def test_the_key_does_not_go_to_a_proxy_of_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy would also answer in the service's place."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert call_service(settings, "POST", "/ok") == {"fine": True}


def test_an_ipv6_address_stands_in_brackets(tmp_path: Path) -> None:
    assert service_url(small_settings(tmp_path, serving={"host": "::1", "port": 81})) == "http://[::1]:81"
    assert service_url(small_settings(tmp_path, serving={"host": "localhost", "port": 81})) == "http://localhost:81"
