"""Every failure a caller can meet: its class, its HTTP status, and the body that the clients of its dialect can read
(`services.error_bodies`). Nothing of the inside (paths, traces, inputs) is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from models.errors import RerankOpsError
from models.records.database import DatabaseError
from services.error_bodies import ErrorBody, ErrorResponse, combined, error_body_of, tei

BODY_TAGS = ("body of texts", "body of documents")
"""How pydantic names the two forms of a body of /rerank."""
_MAX_PROBLEMS = 5
_MAX_NAME = 40
_NO_OBJECT = ("missing", "model_attributes_type")
"""What pydantic says of a body that is empty, another JSON value, or no JSON by its Content-Type."""


class ServiceError(RerankOpsError):
    """Base of the failures that the service itself finds. `param` names the request field at fault."""

    def __init__(self, message: str, hint: str = "", *, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param


class InvalidRequest(ServiceError):
    """The request is well formed and asks for something that is not allowed."""


class EmptyInput(ServiceError):
    """There is no text to rank."""


class MalformedRequest(ServiceError):
    """The body is not JSON."""


class Unauthorized(ServiceError):
    """The key is missing or wrong."""


class UnknownModel(ServiceError):
    """The named model is not the one that serves."""


class UnknownDecision(ServiceError):
    """No decision has this id."""


class RequestTooLarge(ServiceError):
    """The body is larger than serving.max_request_bytes."""


class CallerLeft(ServiceError):
    """The caller closed the connection before the answer; nobody reads what it gets."""


class Overloaded(ServiceError):
    """So much is asked at once that not even an answer without the models would be in time."""


class RequestTooSlow(ServiceError):
    """The body did not arrive in time."""


class NothingServed(ServiceError):
    """No release is loaded."""


class ReleaseLoadFailed(ServiceError):
    """The current release of the ledger does not load; what served before goes on serving."""


class RankingFault(ServiceError):
    """The engine returned a ranking that does not match the request."""


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How a class of failures is told: HTTP status, stable type and code, seconds after which a retry makes sense."""

    status: int
    type: str
    code: str
    retry_after_s: int | None = None


INTERNAL = ErrorKind(500, "server_error", "internal_error")
KINDS: Mapping[type[Exception], ErrorKind] = {
    MalformedRequest: ErrorKind(400, "invalid_request_error", "malformed_json"),
    EmptyInput: ErrorKind(400, "invalid_request_error", "empty_input"),
    Unauthorized: ErrorKind(401, "authentication_error", "invalid_api_key"),
    UnknownModel: ErrorKind(404, "invalid_request_error", "model_not_found"),
    UnknownDecision: ErrorKind(404, "invalid_request_error", "decision_not_found"),
    RequestTooLarge: ErrorKind(413, "invalid_request_error", "request_too_large"),
    InvalidRequest: ErrorKind(422, "invalid_request_error", "invalid_request"),
    CallerLeft: ErrorKind(499, "invalid_request_error", "caller_left"),  # nginx' status for it
    ReleaseLoadFailed: ErrorKind(500, "server_error", "release_load_failed"),
    RankingFault: ErrorKind(500, "server_error", "ranking_fault"),
    RequestTooSlow: ErrorKind(408, "invalid_request_error", "request_timeout"),
    Overloaded: ErrorKind(503, "service_unavailable_error", "overloaded", retry_after_s=1),
    NothingServed: ErrorKind(503, "service_unavailable_error", "no_release", retry_after_s=5),
    DatabaseError: ErrorKind(503, "service_unavailable_error", "database_unavailable", retry_after_s=5),
}


def error_responses(*statuses: int, body: Any = ErrorResponse) -> dict[int | str, dict[str, Any]]:
    """The failures of a route as OpenAPI documents them, each in the form `body`."""
    kinds = (*KINDS.values(), INTERNAL)

    def description(status: int) -> str:
        codes = [kind.code for kind in kinds if kind.status == status]
        return f"{HTTPStatus(status).phrase}: {', '.join(codes)}"

    return {status: {"model": body, "description": description(status)} for status in statuses}


def error_kind(error: Exception) -> ErrorKind:
    """The kind of an exception: its own, else that of the nearest base class, else `INTERNAL`."""
    return next((KINDS[base] for base in type(error).__mro__ if base in KINDS), INTERNAL)


def error_response(error: Exception, trace_id: str = "", body: ErrorBody = combined) -> JSONResponse:
    """The response to an exception. Only failures that callers can act on show their text."""
    kind = error_kind(error)
    if isinstance(error, ServiceError):
        message = f"{error.message}. {error.hint}" if error.hint else error.message
    elif isinstance(error, DatabaseError):
        message = "The records database cannot be reached; try again later."
    else:
        message = f"The service failed inside; its log has the trace {trace_id}."
    return _respond(message, kind, getattr(error, "param", None), body)


def install_error_handlers(app: FastAPI) -> None:
    """Give every failure of `app`, FastAPI's own included, the body of its dialect."""

    async def on_known_error(request: Request, error: Exception) -> JSONResponse:
        return error_response(error, request.scope.get("trace_id", ""), error_body_of(request.scope))

    async def on_invalid_request(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        body = tei if _is_of_tei(request, error.body) else error_body_of(request.scope)
        return error_response(_from_validation(error.errors()), body=body)

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        type_ = "invalid_request_error" if status < 500 else "server_error"
        kind = ErrorKind(status, type_, status.name.lower())
        message = f"{status.phrase}: {request.method} {request.url.path}" if status in (404, 405) else str(error.detail)
        return _respond(message, kind, None, error_body_of(request.scope), error.headers)

    for known in (ServiceError, DatabaseError):
        app.add_exception_handler(known, on_known_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)


def _is_of_tei(request: Request, body: object) -> bool:
    """Whether the body of /rerank is one of text-embeddings-inference."""
    return request.url.path == "/rerank" and isinstance(body, dict) and "texts" in body


def _respond(
    message: str, kind: ErrorKind, param: str | None, body: ErrorBody, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    sent = dict(headers or {})
    if kind.retry_after_s is not None:
        sent["Retry-After"] = str(kind.retry_after_s)
    if kind.status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = "Bearer"
    told = body(message, kind.status, kind.type, param, kind.code)
    return JSONResponse(told.model_dump(), status_code=kind.status, headers=sent)


def _from_validation(problems: Sequence[Mapping[str, Any]]) -> ServiceError:
    """One error that names each field and what is wrong with it, never the value that the caller sent."""
    if any(problem["type"] == "json_invalid" for problem in problems):
        return MalformedRequest("The body is not valid JSON")
    if any(tuple(problem["loc"]) == ("body",) and problem["type"] in _NO_OBJECT for problem in problems):
        return InvalidRequest("The body is not a JSON object", "Send one, with Content-Type: application/json")
    named = [(_field(problem["loc"]), str(problem["msg"])) for problem in problems]
    text = "; ".join(f"{name or 'body'}: {message}" for name, message in named[:_MAX_PROBLEMS])
    more = f" and {len(named) - _MAX_PROBLEMS} more" if len(named) > _MAX_PROBLEMS else ""
    return InvalidRequest(text + more, param=named[0][0] or None)


def _field(location: Sequence[str | int]) -> str:
    """The dotted name of a request field. A name that we do not know is the caller's own, so it is kept short."""
    return ".".join(str(part)[:_MAX_NAME] for part in location[1:] if part not in BODY_TAGS)
