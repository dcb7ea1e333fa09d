"""Messages between the service and its scoring process: a JSON header and raw numbers over a private socket.

Nothing is unpickled. A request to score names the model and the number of tokens of each pair; its body has the ids of
all tokens and behind them their types, int32. The answer's body has a logit for each pair, float32.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cross_encoder.pair_tokenizer import EncodedPair

_SIZES = struct.Struct("<II")
_IDS, _LOGITS = np.dtype("<i4"), np.dtype("<f4")


def send(channel: socket.socket, header: Mapping[str, Any], body: bytes = b"") -> None:
    """Send one message whole."""
    head = json.dumps(header).encode()
    channel.sendall(_SIZES.pack(len(head), len(body)) + head + body)


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Wait for one message. Raises `EOFError` when the other side is gone."""
    head, body = _SIZES.unpack(_exactly(channel, _SIZES.size))
    return json.loads(_exactly(channel, head)), _exactly(channel, body)


def pack_pairs(encoded: Sequence[EncodedPair]) -> tuple[list[int], bytes]:
    """Tokens of each pair, and the body of a request to score them."""
    parts = [encoding.ids for encoding in encoded] + [encoding.type_ids for encoding in encoded]
    body = np.concatenate(parts) if parts else np.empty(0)
    return [len(encoding) for encoding in encoded], body.astype(_IDS).tobytes()


def unpack_pairs(sizes: Sequence[int], body: bytes) -> list[EncodedPair]:
    """What `pack_pairs` packed."""
    ids, types = np.frombuffer(body, dtype=_IDS).reshape(2, -1)
    ends = np.cumsum(sizes)[:-1]
    return [EncodedPair(*pair) for pair in zip(np.split(ids, ends), np.split(types, ends), strict=True)]


def pack_logits(logits: NDArray[np.floating]) -> bytes:
    """The body of the answer."""
    return logits.astype(_LOGITS).tobytes()


def unpack_logits(body: bytes) -> NDArray[np.float32]:
    """What `pack_logits` packed."""
    return np.frombuffer(body, dtype=_LOGITS)


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
