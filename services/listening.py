"""The port of the service: opened before anything is loaded, and closed to who does not say what he wants."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from models.errors import RerankOpsError, SettingsError

_BACKLOG = 512


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens at an address, a name or an IPv4 or IPv6 address with a port.

    Raises `SettingsError` for a host that is none, and `RerankOpsError` for a port that cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise SettingsError(f"serving.host: {host!r} is no address: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise RerankOpsError(
            f"serving.port: {host}:{port} cannot be used: {error.strerror}",
            f"Stop what listens there, or choose another port: --set serving.port={port + 1}.",
        ) from error
    return listener


def impatient_protocol(timeout_s: float) -> type[asyncio.Protocol]:
    """HTTP connections that are closed when the head of a request, from their start or its first byte, does not arrive
    in time: uvicorn waits for it for ever."""

    class Impatient(HttpToolsProtocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait()

        def on_headers_complete(self) -> None:
            self._cease()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cease()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._cease()
            self._waiting = self.loop.call_later(timeout_s, self.transport.close)

        def _cease(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Impatient
