"""The scoring process: loads the models of one bundle and scores what the service sends, until the service is gone."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.cross_encoder.onnx_session import OnnxSession, is_graph
from models.errors import RerankOpsError
from models.serving.model_files import ModelFiles
from services.log_lines import error_facts, log_to_stderr
from services.scorer.wire import pack_logits, receive, send, unpack_pairs

_LOG = logging.getLogger(__name__)


def main(descriptor: int) -> None:
    """Serve the socket with this descriptor."""
    log_to_stderr()
    # A terminal and most supervisors signal the whole group; the service then answers what it has, with this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_service, args=(channel,), daemon=True).start()
    try:
        facts, _ = receive(channel)
        try:
            scorers = _open(facts)
        except Exception as error:
            _LOG.error("models do not load", extra={"facts": error_facts(error)})
            send(channel, {"error": str(error) if isinstance(error, RerankOpsError) else type(error).__name__})
            return
        send(channel, {"padded": {size: scorer.padded for size, scorer in scorers.items()}})
        while True:
            request, body = receive(channel)
            send(channel, *_scored(scorers, request, body))
    except (EOFError, OSError):
        return


def _open(facts: dict[str, Any]) -> Mapping[str, Any]:
    """The engines by size. Those of ONNX Runtime need no other library, and so are there in a second."""
    files = ModelFiles(Path(facts["folder"]), facts["max_tokens"], facts["threads"], facts["digests"])
    files.verify()
    engines = {tier: files.folder / "engines" / tier for tier in facts["tiers"]}
    if all(map(is_graph, engines.values())):
        return {size: OnnxSession.open(folder, files.threads) for size, folder in engines.items()}
    from models.serving.engines import LocalEngines, use_threads

    use_threads(files.threads)
    return LocalEngines(files).scorers


def _scored(scorers: Mapping[str, Any], request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    pairs: list[Any] = unpack_pairs(request["sizes"], body)
    try:
        return {}, pack_logits(scorers[request["model"]].logits_of(pairs, len(pairs)))
    except Exception as error:
        _LOG.error("pairs not scored", extra={"facts": error_facts(error)})
        return {"error": type(error).__name__}, b""


def _end_with_service(channel: socket.socket) -> None:
    """End the process when the service's end of the socket closes, whatever the main thread does: also when the service
    was killed."""
    hung_up = select.poll()
    hung_up.register(channel, 0)
    hung_up.poll()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
