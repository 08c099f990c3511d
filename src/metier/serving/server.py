"""Running the application with uvicorn: slow heads of requests are cut off, errors of the protocol have OpenAI's form, logs are JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from metier.errors import MetierError
from metier.serving.settings import ServingSettings
from metier.serving.wire import error_body

__all__ = ["JsonLines", "background", "configure", "log_as_json", "serve"]

_HEAD_BYTES = 16_384


class JsonLines(logging.Formatter):
    """One JSON object a line in ASCII: whatever a text holds, it can neither begin a line nor steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            # The type alone: the text of an exception may hold what a client sent.
            entry["error"] = record.exc_info[0].__name__
        return json.dumps(entry, ensure_ascii=True)


def log_as_json() -> None:
    """Send the server's log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("metier.serving", "uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "metier.serving" else logging.WARNING)
    logging.getLogger("uvicorn.error").handlers = []
    logging.getLogger("uvicorn.error").propagate = True


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP/1.1 protocol with a limit in seconds on how long a client may take to send the head of a request."""

    class Limited(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # uvicorn's own line a request holds the path and query as they came, whoever listens to its logger.
            self.access_log = False
            self._start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._timer is None and self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            body = json.dumps(error_body("this is no valid HTTP request", "invalid_request_error", code="invalid_http")).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            events = [h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=body), h11.EndOfMessage()]
            with contextlib.suppress(h11.LocalProtocolError):
                for event in events:
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _start(self) -> None:
            self._timer = self.loop.call_later(seconds, self._late)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            self.transport.abort()

    return Limited


def configure(app: ASGIApp, settings: ServingSettings) -> uvicorn.Server:
    """Return a server that is ready to run, on this or another thread."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=_protocol(settings.read_timeout),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=max(1, int(settings.read_timeout)),
            timeout_graceful_shutdown=int(settings.grace),
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
    )


def serve(app: ASGIApp, settings: ServingSettings) -> None:
    """Answer until the process is told to stop (SIGINT, SIGTERM); then running answers get `grace` seconds to finish."""
    log_as_json()
    server = configure(app, settings)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


@contextlib.contextmanager
def background(app: ASGIApp, settings: ServingSettings) -> Iterator[str]:
    """Answer on a thread of this process inside the block, and give the address. Raises MetierError if the server does not start."""
    server = configure(app, settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="metier-server", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise MetierError(f"the server did not start at {settings.host}:{settings.port}\n    -> take another port: --port, or serving.port")
        time.sleep(0.01)
    try:
        yield f"http://{settings.host}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
