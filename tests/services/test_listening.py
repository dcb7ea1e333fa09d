"""The port of the service, and connections on which nothing is said."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from models.errors import RerankOpsError, SettingsError
from services.listening import impatient_protocol, open_port
from tests.patience import PATIENCE_S
from tests.service_process import free_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_port_is_open_before_anything_is_served(host: str) -> None:
    port = free_port()
    with open_port(host, port), socket.create_connection((host, port), PATIENCE_S):
        with pytest.raises(RerankOpsError, match=f"serving.port: {host}:{port} cannot be used") as taken:
            open_port(host, port)
        assert f"serving.port={port + 1}" in taken.value.hint


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match=r"serving\.host: 'no host' is no address"):
        open_port("no host", free_port())


def test_a_connection_that_does_not_say_what_it_wants_is_closed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)  # longer than a head may take
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def read(sent: bytes, address: tuple[str, int]) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        received = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        return received

    async def go() -> list[bytes]:
        with open_port("127.0.0.1", free_port()) as listener:
            config = uvicorn.Config(
                app, http=impatient_protocol(0.2), lifespan="off", log_config=None, timeout_keep_alive=1
            )
            server = uvicorn.Server(config)
            serving = asyncio.ensure_future(server.serve(sockets=[listener]))
            request = b"GET / HTTP/1.1\r\nHost: x\r\n"
            ends = b"\r\n"
            sent = (b"", request, request + ends, request + ends + request)
            try:
                return list(await asyncio.gather(*(read(part, listener.getsockname()) for part in sent)))
            finally:
                server.should_exit = True
                await serving

    silent, begun, whole, second = asyncio.run(go())
    assert (silent, begun) == (b"", b"")
    assert whole.startswith(b"HTTP/1.1 204")
    assert second.count(b"HTTP/1.1") <= 1
