"""The outermost layer of the server: no request gets past it without a key, and no error past it without OpenAI's form."""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metier.errors import StoreError
from metier.serving.auth import ApiKey, required_scope
from metier.serving.exchange import refusal
from metier.serving.service import Service
from metier.serving.wire import Refused

__all__ = ["Door", "Visit"]

_LOG = logging.getLogger("metier.serving")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Visit:
    """What the rest of the server knows of one request: a name of our own making, and the key that was shown."""

    name: str
    key: ApiKey | None


class Door:
    """ASGI middleware that is default-deny: it looks at a request before any route is looked for."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let lifespan events and allowed requests through, refuse all else."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        name, began, status = secrets.token_hex(16), time.perf_counter(), 0
        key: ApiKey | None = None

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [item for item in message.get("headers", []) if item[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]}
            await send(message)

        try:
            key = self._admit(scope)
            scope["metier"] = Visit(name, key)
            await self.app(scope, receive, named)
        except Refused as refused:
            self.service.metrics.denied.inc()
            response = refusal(refused)
            if refused.status == 401:
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, named)
        except Exception as error:  # noqa: BLE001 - the outermost edge of a request
            # Where it happened, never what the message says: it may hold text of the request.
            places = "; ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-6:])
            _LOG.error("request %s failed: %s at %s", name, type(error).__name__, places)
            if not status:
                await refusal(Refused(500, "the server failed on this request", "server_error", code="internal_error"))(scope, receive, named)
        finally:
            self._note(scope, name, key, status, time.perf_counter() - began)

    def _admit(self, scope: Scope) -> ApiKey | None:
        """Return the key of a request, None where none is needed. Raises Refused for every request that may not pass."""
        wanted = required_scope(scope["method"], scope["path"])
        if wanted is None:
            return None
        shown = [value for field, value in scope["headers"] if field == b"authorization"]
        kind, _, secret = shown[0].decode("latin-1").partition(" ") if len(shown) == 1 else ("", "", "")
        try:
            key = self.service.keys.find(secret.strip()) if kind.lower() == "bearer" else None
        except StoreError:
            raise Refused(503, "the server's keys cannot be read", "server_error", code="unavailable", retry=5) from None
        if key is None:
            raise Refused(401, "give a valid key: Authorization: Bearer mtr_...", "authentication_error", code="invalid_api_key")
        if wanted not in key.scopes:
            raise Refused(403, f"this key has no scope {wanted!r}", "permission_error", code="missing_scope")
        return key

    def _note(self, scope: Scope, name: str, key: ApiKey | None, status: int, seconds: float) -> None:
        """Count and log a request by the names that the server gave to things, not by what the client sent."""
        route = getattr(scope.get("route"), "path", "-")
        method = scope["method"] if scope["method"] in _METHODS else "-"
        self.service.metrics.responses.labels(route, str(status)).inc()
        _LOG.info("request %s %s %s %d %.1f ms key %s", name, method, route, status, 1000 * seconds, key.name if key else "-")
