"""Calls to the running service of this deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import RerankOpsError
from models.serving.api_keys import service_key
from models.settings import Settings


class ServiceUnavailable(RerankOpsError):
    """No service answers at the configured address."""


def call_service(
    settings: Settings,
    method: str,
    path: str,
    body: Any = None,
    timeout_s: float = 120,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Call the service with this deployment's key. Raises `ServiceUnavailable` where none listens,
    `RerankOpsError` on a refusal."""
    import httpx

    key, _ = service_key(settings.home)
    url = f"http://{settings.serving.host}:{settings.serving.port}{path}"
    try:
        sent = {**(headers or {}), "Authorization": f"Bearer {key}"}
        response = httpx.request(method, url, json=body, headers=sent, timeout=timeout_s)
    except httpx.TransportError as error:
        raise ServiceUnavailable(f"no service answers at {url}: {error}", "Start it with `rerankops serve`.") from error
    if response.is_error:
        try:
            message = response.json()["message"]
        except (ValueError, KeyError, TypeError):
            message = response.reason_phrase
        raise RerankOpsError(f"{path} answered {response.status_code}: {message}")
    return response.json()
