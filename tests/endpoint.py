"""A server on this machine that speaks OpenAI's chat protocol, for what writes through an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def endpoint(reply: Callable[[str], str]) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]], list[tuple[int, bytes]]]]:
    """Yield the address, what was asked so far (authorization, body), and a list of raw answers that come before those of `reply`."""
    seen: list[tuple[str, dict[str, Any]]] = []
    raw: list[tuple[int, bytes]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.headers.get("authorization", ""), body))
            said = {"choices": [{"message": {"content": reply(body["messages"][0]["content"])}}]}
            status, data = raw.pop(0) if raw else (200, json.dumps(said).encode())
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen, raw
    finally:
        server.shutdown()
        server.server_close()
