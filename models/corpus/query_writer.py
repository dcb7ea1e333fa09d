"""The language model that writes queries: one prompt, one answer, within bounds and with patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from models.chat import ChatEndpoint, NotChat, read_answer
from models.errors import SettingsError, SourceError
from models.settings import QueryWriterSettings

if TYPE_CHECKING:
    import httpx

_BACKOFF_S, _MOST_S = 1.0, 30.0
"""Seconds before a second attempt, doubled for each further one, and at most."""
_ANSWER_TOKENS = 64
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
        self._endpoint = ChatEndpoint(settings.url, settings.model, settings.api_key_env)
        self._client = httpx.Client(timeout=settings.timeout_s, headers=self._endpoint.headers, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, system: str, user: str) -> str:
        """The answer to a prompt. Raises `SourceError` where there is none after `query_writer.attempts`, and
        `SettingsError` where the server refuses the request."""
        import httpx

        settings = self._settings
        body = self._endpoint.body(system, user, temperature=settings.temperature, max_tokens=_ANSWER_TOKENS)
        problem = ""
        for attempt in range(settings.attempts):
            wait = min(_BACKOFF_S * 2**attempt, _MOST_S)
            try:
                with self._client.stream("POST", self._endpoint.url, json=body) as response:
                    if response.is_success:
                        return read_answer(response)
            except httpx.TransportError as error:
                problem = type(error).__name__
            except NotChat as error:
                raise SourceError(
                    f"query_writer: {error}", "Check query_writer.url: most servers have the interface below /v1."
                ) from error
            else:
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


def _asked_to_wait(response: httpx.Response) -> float:
    try:
        return max(float(response.headers.get("Retry-After", 0)), 0.0)
    except ValueError:
        return 0.0
