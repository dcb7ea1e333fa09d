"""A language model behind an OpenAI-compatible interface: one prompt, one answer, within bounds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from models.errors import SettingsError, SourceError
from models.settings import QueryWriterSettings

if TYPE_CHECKING:
    import httpx

_BACKOFF_S, _MOST_S = 1.0, 30.0
"""Seconds before a second attempt, doubled for each further one, and at most."""
_ANSWER_TOKENS = 64
_ANSWER_BYTES = 1_000_000
_TRANSIENT = {408, 409, 425, 429}


class QueryWriter:
    """Asks `POST <url>/chat/completions`.

    What may pass (a connection that fails, a timeout, status 429 or 5xx) is tried again, later each time, or when the
    server says so. The key comes from the environment and is in no message. Threads may share it.
    """

    def __init__(self, settings: QueryWriterSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        import httpx

        self._settings = settings
        self._sleep = sleep
        key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=settings.timeout_s, headers=headers, follow_redirects=False)
        self._url = f"{settings.url.rstrip('/')}/chat/completions"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, system: str, user: str) -> str:
        """The answer to a prompt. Raises `SourceError` where there is none after `query_writer.attempts`, and
        `SettingsError` where the server refuses the request."""
        import httpx

        settings = self._settings
        body = {
            "model": settings.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": settings.temperature,
            "max_tokens": _ANSWER_TOKENS,
        }
        problem = ""
        for attempt in range(settings.attempts):
            wait = min(_BACKOFF_S * 2**attempt, _MOST_S)
            try:
                with self._client.stream("POST", self._url, json=body) as response:
                    answer = _read(response) if response.is_success else b""
            except httpx.TransportError as error:
                problem = type(error).__name__
            else:
                if response.is_success:
                    return _content(answer)
                problem = f"status {response.status_code}"
                if response.status_code not in _TRANSIENT and response.status_code < 500:
                    raise SettingsError(
                        f"query_writer: {settings.url} refuses the request with {problem}",
                        f"Check query_writer.url, query_writer.model and the key in {settings.api_key_env}.",
                    )
                wait = _asked_to_wait(response) or wait
            if attempt + 1 < settings.attempts:
                self._sleep(min(wait, _MOST_S))
        raise SourceError(
            f"query_writer: no answer of {settings.url} after {settings.attempts} attempts: {problem}",
            "Run again: what was written is kept.",
        )


def _read(response: httpx.Response) -> bytes:
    """The body as far as `_ANSWER_BYTES`: one more where it is longer."""
    body = b""
    for part in response.iter_bytes():
        body += part
        if len(body) > _ANSWER_BYTES:
            return body[: _ANSWER_BYTES + 1]
    return body


def _content(answer: bytes) -> str:
    """The text of an answer. Raises `SourceError` for what is none of this protocol."""
    try:
        if len(answer) > _ANSWER_BYTES:
            raise ValueError("too long")
        values: Any = json.loads(answer)
        content = values["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise TypeError("no text")
    except (ValueError, LookupError, TypeError) as error:
        raise SourceError(
            "query_writer: an answer is not as the OpenAI interface has it: choices[0].message.content",
            "Check query_writer.url: most servers have the interface below /v1.",
        ) from error
    return content


def _asked_to_wait(response: httpx.Response) -> float:
    try:
        return max(float(response.headers.get("Retry-After", 0)), 0.0)
    except ValueError:
        return 0.0
