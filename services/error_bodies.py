"""The bodies of failures, each as the clients of a dialect read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from starlette.types import Scope

ErrorBody = Callable[[str, int, str, str | None, str], BaseModel]
"""From message, HTTP status, type, field at fault and code."""


class ErrorDetail(BaseModel):
    """What failed: `code` and `type` are stable, `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorResponse(BaseModel):
    """A failure, in one body for all clients of a path: Cohere's read `message`, Jina's and Voyage's `detail` (a
    string), those of OpenAI's form `error`."""

    message: str
    detail: str
    error: ErrorDetail


class StatusDetail(BaseModel):
    """As vLLM and infinity tell it: `code` is the HTTP status."""

    message: str
    type: str
    param: str | None
    code: int


class StatusErrorResponse(BaseModel):
    """A failure in vLLM's and infinity's form."""

    error: StatusDetail


class FlatErrorResponse(BaseModel):
    """A failure in SGLang's form."""

    object: Literal["error"] = "error"
    message: str
    type: str
    param: str | None
    code: int


class TeiErrorResponse(BaseModel):
    """A failure in the form of text-embeddings-inference."""

    error: str
    error_type: Literal["Validation", "Tokenizer", "Empty", "Overloaded", "Backend", "Unhealthy"]


_TEI_TYPES: Mapping[str, Any] = {"empty_input": "Empty", "overloaded": "Overloaded", "no_release": "Unhealthy"}


def combined(message: str, status: int, type_: str, param: str | None, code: str) -> ErrorResponse:
    """For paths that several dialects share."""
    return ErrorResponse(
        message=message, detail=message, error=ErrorDetail(message=message, type=type_, param=param, code=code)
    )


def with_status(message: str, status: int, type_: str, param: str | None, code: str) -> StatusErrorResponse:
    """For vLLM and infinity."""
    return StatusErrorResponse(error=StatusDetail(message=message, type=type_, param=param, code=status))


def flat(message: str, status: int, type_: str, param: str | None, code: str) -> FlatErrorResponse:
    """For SGLang."""
    return FlatErrorResponse(message=message, type=type_, param=param, code=status)


def tei(message: str, status: int, type_: str, param: str | None, code: str) -> TeiErrorResponse:
    """For text-embeddings-inference."""
    error_type = _TEI_TYPES.get(code, "Backend" if status >= 500 else "Validation")
    return TeiErrorResponse(error=message, error_type=error_type)


BODIES: Mapping[str, ErrorBody] = {
    "/infinity/rerank": with_status,
    "/score": with_status,
    "/v1/score": with_status,
    "/sglang/v1/rerank": flat,
    "/info": tei,
}
"""By path, where it is not `combined`. /rerank has two forms, by its body."""


def error_body_of(scope: Scope) -> ErrorBody:
    """The form in which a request is told its failure."""
    return scope.get("state", {}).get("error_body") or BODIES.get(scope["path"], combined)
