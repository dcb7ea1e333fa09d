"""What stands in front of every route: the key, the size of the body, the trace, the access log, and the last catch.

Written as plain ASGI, since a body must be refused before anything reads it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from dataclasses import dataclass

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.contracts.messages import PROBE_CALLER, PROBE_HEADER
from models.serving.api_keys import KeyCheck, caller_name
from models.settings import ServingSettings
from services.error_bodies import error_body_of
from services.errors import Overloaded, RequestTooLarge, RequestTooSlow, ServiceError, Unauthorized, error_response
from services.telemetry import Telemetry

OPEN_PATHS = frozenset({"/health", "/health/ready", "/metrics"})
TRACE_HEADER = "X-Trace-Id"
NEEDS_KEY = [Security(HTTPBearer(auto_error=False, description="The service's key; `RequireKey` checks it."))]
"""For OpenAPI: the routes that are not open."""

_LOG = logging.getLogger(__name__)
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")  # W3C Trace Context
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_CLIENT_GONE = 499  # nginx' status for a client that left before the answer
_SHOWN = ("decision_id", "release_id", "degraded")


class Observe:
    """Outermost: gives each request a trace id, counts and logs it, and turns what nobody caught into a plain 500."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["arrived"] = time.monotonic()
        trace_id = scope["trace_id"] = _trace_id(Headers(scope=scope))
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[TRACE_HEADER] = trace_id
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        except Exception as error:
            _LOG.exception("request failed", extra={"facts": {"trace_id": trace_id}})
            if status:
                raise
            await error_response(error, trace_id, error_body_of(scope))(scope, receive, send_traced)
        finally:
            self._note(scope, status or _CLIENT_GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's template, never the path: labels must stay few, and paths hold ids.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._telemetry.request(method, route, status, seconds)
        if scope["path"] in OPEN_PATHS:
            return
        state = scope.get("state", {})
        if "tier" in state:
            self._telemetry.answer(route, state["tier"], seconds, state["degraded"])
        facts = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "trace_id": scope["trace_id"],
            "caller": state.get("caller", ""),
        } | {name: state[name] for name in _SHOWN if name in state}
        _LOG.info("request", extra={"facts": facts})


class RequireKey:
    """Refuses requests without the key, before their body is read, and knows the deployment's own probes. /health and
    /metrics are open."""

    def __init__(self, app: ASGIApp, check: KeyCheck, is_probe: KeyCheck) -> None:
        self._app = app
        self._check = check
        self._is_probe = is_probe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        presented = bearer_token(headers)
        if presented is None or not self._check(presented):
            await error_response(_unauthorized(presented), body=error_body_of(scope))(scope, receive, send)
            return
        probe = headers.get(PROBE_HEADER)
        scope.setdefault("state", {})["caller"] = (
            PROBE_CALLER if probe and self._is_probe(probe) else caller_name(presented)
        )
        await self._app(scope, receive, send)


class LimitBody:
    """Reads the body up to the limit, in the time that it has for it, and refuses the rest, whatever Content-Length
    says. Bodies that are read or answered at the same time share a limit too, so that memory has one."""

    def __init__(self, app: ASGIApp, settings: ServingSettings) -> None:
        self._app = app
        self._limit = settings.max_request_bytes
        self._most_held = max(settings.max_held_bytes, self._limit)
        self._timeout_s = settings.request_timeout_s
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        held = _Held()
        try:
            await self._answer(scope, receive, send, held)
        finally:
            self._held -= held.bytes

    async def _answer(self, scope: Scope, receive: Receive, send: Send, held: _Held) -> None:
        declared = Headers(scope=scope).get("content-length", "")
        try:
            if declared.isdigit() and int(declared) > self._limit:
                raise self._too_large()
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive, held)
        except ClientDisconnect:
            return
        except TimeoutError:
            hint = f"It has {self._timeout_s:g} seconds (serving.request_timeout_s)"
            await _hang_up(RequestTooSlow("The request body did not arrive in time", hint), scope, receive, send)
            return
        except ServiceError as refused:
            await error_response(refused, body=error_body_of(scope))(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _too_large(self) -> RequestTooLarge:
        hint = f"At most {self._limit} bytes (serving.max_request_bytes): send fewer or shorter documents"
        return RequestTooLarge("The request body is too large", hint)

    async def _read(self, receive: Receive, held: _Held) -> bytes:
        """The whole body. Raises `RequestTooLarge`, `Overloaded` and `ClientDisconnect`."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > self._limit:
                raise self._too_large()
            if self._held + len(part) > self._most_held:
                hint = f"At most {self._most_held} bytes of requests are answered at once (serving.max_held_bytes)"
                raise Overloaded("Too much is asked at once", hint)
            held.bytes += len(part)
            self._held += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


@dataclass
class _Held:
    """Bytes that the body of one request takes."""

    bytes: int = 0


async def _hang_up(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer and close the connection, on which the rest of a body may still come."""
    response = error_response(error, body=error_body_of(scope))
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


def bearer_token(headers: Headers) -> str | None:
    """The token of `Authorization: Bearer <token>`, None where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _unauthorized(presented: str | None) -> ServiceError:
    hint = "Send the header Authorization: Bearer <key>; the service prints at its start where the key is kept"
    return Unauthorized("The key is missing" if presented is None else "The key is wrong", hint)


def _trace_id(headers: Headers) -> str:
    match = _TRACEPARENT.match(headers.get("traceparent", ""))
    trace_id = match.group(1) if match else ""
    return trace_id if trace_id.strip("0") else secrets.token_hex(16)
