"""A real S3 server for the tests of an artifact root there: moto's, in a process of its own, spoken to over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest

from tests.patience import PATIENCE_S

__all__ = ["SECRET", "s3_environment", "s3_root", "s3_server"]

SECRET = "a-secret-that-is-told-to-nobody"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that is empty at first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as file:
        program = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(program, stdout=file, stderr=file)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                hint = "install the extra `dev`" if "No module named" in log.read_text() else ""
                pytest.fail(f"the S3 server did not start: {hint}\n{log.read_text()}", pytrace=False)
            time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/moto-api/", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture
def s3_environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment that names the server and the credentials, set for the test and returned for processes."""
    variables = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **variables}


@pytest.fixture
def s3_root(s3_environment: dict[str, str]) -> Callable[[], str]:
    """A function that makes an empty bucket and returns the URL of a folder in it."""

    def make() -> str:
        bucket = f"bucket-{uuid4().hex[:12]}"
        httpx.put(f"{s3_environment['AWS_ENDPOINT_URL']}/{bucket}", timeout=PATIENCE_S).raise_for_status()
        return f"s3://{bucket}/artifacts"

    return make
