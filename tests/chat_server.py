"""A server that speaks OpenAI's chat completions over HTTP and writes a question about the passage that it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ChatServer:
    """What it was sent, and how it answers: `statuses` are used up first, then it writes."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lost: tuple[str, ...] = ()
    """Words of passages about which it writes what is not in them."""
    body: bytes | None = None
    """An answer in place of what it would write."""

    def answer(self, values: dict[str, Any]) -> str:
        passage = values["messages"][-1]["content"].rpartition("Passage: ")[2].removesuffix("\nQuery:")
        if any(word in passage for word in self.lost):
            return "who wins the football cup"
        return f'Query: "what about {" ".join(passage.split()[:6])}"\nIt is a good query.'


@contextmanager
def chat_server(**options: Any) -> Iterator[ChatServer]:
    """The server, on a free port of this machine."""
    server = ChatServer(**options)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append({"path": self.path, **values})
                server.keys.append(self.headers.get("Authorization"))
                status = server.statuses.pop(0) if server.statuses else 200
            message = {"role": "assistant", "content": server.answer(values)}
            body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            data = json.dumps(body).encode() if server.body is None else server.body
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named as in the library
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
