"""Calls to the running service of this deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import RerankOpsError
from models.serving.api_keys import service_key
from models.settings import Settings


class ServiceUnavailable(RerankOpsError):
    """No service answers at the configured address."""


class ServiceSlow(RerankOpsError):
    """A service was asked and has not answered: it may still do what it was asked for."""


def service_url(settings: Settings) -> str:
    """Where the service of this deployment listens, as in `http://[::1]:8000`."""
    host = settings.serving.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.serving.port}"


def call_service(
    settings: Settings,
    method: str,
    path: str,
    body: Any = None,
    timeout_s: float = 120,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Call the service with this deployment's key. Raises `ServiceUnavailable` where none listens, `ServiceSlow` where
    one was asked and no answer came, `RerankOpsError` on a refusal."""
    import httpx

    key, _ = service_key(settings.home)
    url = service_url(settings) + path
    sent = {**(headers or {}), "Authorization": f"Bearer {key}"}
    try:
        # A proxy of the environment would get the key, and could answer in the service's place.
        response = httpx.request(method, url, json=body, headers=sent, timeout=timeout_s, trust_env=False)
    except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.ReadError, httpx.RemoteProtocolError) as error:
        raise ServiceSlow(
            f"the service at {url} was asked and has not answered within {timeout_s:.0f} s: {error}",
            "`rerankops status` and /health say what it serves.",
        ) from error
    except httpx.TransportError as error:
        raise ServiceUnavailable(f"no service answers at {url}: {error}", "Start it with `rerankops serve`.") from error
    if response.is_error:
        try:
            message = response.json()["message"]
        except (ValueError, KeyError, TypeError):
            message = response.reason_phrase
        raise RerankOpsError(f"{path} answered {response.status_code}: {message}")
    return response.json()
