"""An OpenAI-compatible chat endpoint: what is sent to `POST <url>/chat/completions`, and what of an answer is read.

Both of its clients, which write queries and answers, send and read by it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 1_000_000
"""Bytes of an answer, at most."""


class NotChat(Exception):
    """What came is no answer of this protocol; its text says what is missing."""

    def __init__(self) -> None:
        super().__init__("an answer is not as the OpenAI interface has it: choices[0].message.content")


@dataclass(frozen=True)
class ChatEndpoint:
    """Where a language model is asked, and by which name. The key comes from the environment and is in no message."""

    base_url: str
    model: str
    api_key_env: str
    _key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        key = os.environ.get(self.api_key_env, "") if self.api_key_env else ""
        object.__setattr__(self, "_key", key)

    @property
    def url(self) -> str:
        """Of the requests."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        """The key, where there is one."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def body(self, system: str, user: str, *, temperature: float, max_tokens: int) -> dict[str, Any]:
        """What asks for one answer to a prompt."""
        return {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }


def read_answer(response: httpx.Response) -> str:
    """The text of a streamed response. Raises `NotChat` for another protocol or more than `MOST_BYTES`."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise NotChat
    return _content(body)


async def read_answer_async(response: httpx.Response) -> str:
    """The same of a response to an asynchronous client."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise NotChat
    return _content(body)


def _content(answer: bytes | bytearray) -> str:
    try:
        values: Any = json.loads(answer)
        content = values["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NotChat from error
    if not isinstance(content, str):
        raise NotChat
    return content
