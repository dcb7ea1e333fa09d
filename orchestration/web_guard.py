"""What stands before Dagster's web server, which asks for nothing: else any page in a browser may launch a job there.

A page of another site can send requests to a port of this machine, and under a name of its own (DNS rebinding) read the
answers. So the name, the origin and where a request comes from must be this server's, and it must bring the token that
`rerankops dev` prints, as with Jupyter: in the address, then in a cookie, or as a bearer token. Dagster also runs
mutations by GET; here a query is POSTed.
"""

from __future__ import annotations

import hmac
import os
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_VARIABLE = "RERANKOPS_DEV_TOKEN"
_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_OURS = frozenset({"", "none", "same-origin"})
"""Sec-Fetch-Site of this server's own pages, of a typed address, and of clients that are no browser."""


def token_of_environment() -> str:
    """The token in `RERANKOPS_DEV_TOKEN`, made and put there if there is none: child processes have the same."""
    return os.environ.setdefault(TOKEN_VARIABLE, secrets.token_urlsafe(32))


class WebGuard:
    """Lets pass what comes from this machine's own browser page or a client with the token; 403 and 405 for the rest.

    A cookie holds for all ports of a name, so its name has the port.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        if not token:
            raise ValueError("a web server without a token is open to every page")
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._answer(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered in place of Dagster, None where Dagster answers."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in _NAMES or len(headers.getlist("host")) != 1:
            return _refused(403, f"{host!r} is not this server: use http://127.0.0.1 or localhost.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _refused(403, "A page of another origin may not ask.")
        parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        in_address = [value for name, value in parameters if name == "token"]
        opens_page = scope["type"] == "http" and scope["method"] == "GET"
        if opens_page and in_address and self._is_token(in_address[-1]):
            return self._admitted(scope, [item for item in parameters if item[0] != "token"], host)
        if headers.get("sec-fetch-site", "") not in _OURS:
            return _refused(403, "A page of another site may not ask.")
        if not self._is_token(_bearer(headers)) and not self._is_token(_cookie(headers, _cookie_name(host))):
            return _refused(403, "Open the address that `rerankops dev` printed: it has a token in it.")
        by_address = scope["type"] == "http" and scope["method"] != "POST" and parameters
        if by_address and scope["path"].rstrip("/").endswith("/graphql"):
            return _refused(405, "Queries and mutations are POSTed.", {"Allow": "POST"})
        return None

    def _admitted(self, scope: Scope, parameters: list[tuple[str, str]], host: str) -> Response:
        """A page that goes on to the same address without the token. It is this server's own, so that the browser then
        sends the cookie, wherever the address was clicked."""
        # One slash: two would begin the name of another server.
        path = "/" + quote(scope["path"].lstrip("/")) + (f"?{urlencode(parameters)}" if parameters else "")
        page = f'<meta http-equiv="refresh" content="0;url=\'{path.replace("&", "&amp;")}\'"><title>Dagster</title>'
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        answer = HTMLResponse(page, headers=headers)
        answer.set_cookie(_cookie_name(host), self._token.decode(), httponly=True, samesite="strict")
        return answer

    def _is_token(self, presented: str) -> bool:
        return hmac.compare_digest(presented.encode("utf-8", "surrogatepass"), self._token)


def _refused(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{why}\n", status, headers)


def _name(host: str) -> str:
    """The name in a Host header, without the port: it differs where the port is forwarded."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie_name(host: str) -> str:
    return f"rerankops_dev_{urlsplit(f'//{host}').netloc.rpartition(']')[2].rpartition(':')[2]}"


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: Headers, name: str) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value
