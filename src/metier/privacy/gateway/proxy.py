"""The gateway as an ASGI application: an OpenAI-compatible reverse proxy through which no personal identifier leaves.

Fails closed: what cannot be read, searched or redacted is refused and never sent. No body, header or key is logged.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from metier.errors import MetierError, MissingExtra
from metier.privacy.gateway.conversation import Conversation
from metier.privacy.gateway.stream import EventStream

if TYPE_CHECKING:
    import httpx

__all__ = ["Gateway", "GatewaySettings"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_LOG = logging.getLogger("metier.gateway")
_POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_GETS = ("/v1/models",)
_PERSONAL = ("user", "safety_identifier", "metadata", "prompt_cache_key")
"""Fields of a request that are about the person who asks; they are not sent on."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where requests go, with which key, and who may send them. The keys are never shown."""

    upstream: str
    key: str | None = field(default=None, repr=False)
    """Sent to the upstream as bearer token."""
    token: str | None = field(default=None, repr=False)
    """What clients have to send as bearer token; none: everybody who can reach the port."""
    language: str | None = "auto"
    pack: str | None = None
    timeout: float = 120.0
    longest: int = 8 << 20
    """Bytes that a request has at most."""


class _Refused(Exception):
    """Why a request is answered here, with its status."""

    def __init__(self, status: int, why: str, kind: str = "invalid_request_error") -> None:
        super().__init__(why)
        self.status, self.why, self.kind = status, why, kind


class Gateway:
    """Redacts what comes in, asks the upstream, restores what comes back. `transport` stands in for the network (httpx)."""

    def __init__(self, settings: GatewaySettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        try:
            import httpx
        except ModuleNotFoundError:
            raise MissingExtra("httpx", "gateway", "the gateway") from None
        self._settings = settings
        self._client = httpx.AsyncClient(base_url=settings.upstream.rstrip("/"), timeout=settings.timeout, transport=transport, follow_redirects=False)
        self._failures = (httpx.HTTPError, httpx.InvalidURL)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        began = False

        async def noted(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._answer(scope, receive, noted)
        except _Refused as refused:
            await _error(noted, refused.status, refused.why, refused.kind)
        except Exception as error:  # noqa: BLE001 - the outermost edge of a request: nothing of it is shown
            _LOG.error("a request failed: %s", type(error).__name__)
            if began:
                raise RuntimeError("the answer broke off") from None
            await _error(noted, 500, "the gateway failed on this request; nothing more was sent", "server_error")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._client.aclose()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self._admit(scope)
        method, path = scope["method"], scope["path"]
        if method == "GET" and path == "/health":
            await _reply(send, 200, b'{"status":"ok"}')
            return
        if not ((method == "POST" and path in _POSTS) or (method == "GET" and path in _GETS)):
            raise _Refused(404, f"the gateway passes on POST {', '.join(_POSTS)} and GET {', '.join(_GETS)}")
        if scope.get("query_string"):
            raise _Refused(400, "parameters in the address are not passed on: they cannot be looked into")
        if method == "GET":
            await self._pass(send, method, path, None, Conversation())
            return
        body = _parsed(await self._body(receive))
        conversation = Conversation(language=self._settings.language, pack=self._settings.pack)
        try:
            # Detection is work for the processor: it must not hold up other requests.
            safe = await asyncio.to_thread(conversation.redact_value, {name: value for name, value in body.items() if name not in _PERSONAL})
        except MetierError as error:
            _LOG.warning("a request was refused: %s", type(error).__name__)
            raise _Refused(422, f"not sent: {str(error).splitlines()[0]}", "personal_data") from None
        await self._pass(send, method, path, safe, conversation)

    def _admit(self, scope: MutableMapping[str, Any]) -> None:
        wanted = self._settings.token
        if wanted is None:
            return
        shown = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        if len(shown) != 1 or not hmac.compare_digest(shown[0], f"Bearer {wanted}".encode()):
            raise _Refused(401, "give the gateway's token: Authorization: Bearer ...", "authentication_error")

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Refused(400, "the request ended before its body")
            parts.append(message.get("body", b""))
            if sum(map(len, parts)) > self._settings.longest:
                raise _Refused(413, f"the request is longer than {self._settings.longest} bytes")
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _pass(self, send: Send, method: str, path: str, body: Any, conversation: Conversation) -> None:
        headers = {"accept-encoding": "identity", **({"authorization": f"Bearer {self._settings.key}"} if self._settings.key else {})}
        request = self._client.build_request(method, path.removeprefix("/v1"), json=body, headers=headers)
        try:
            answer = await self._client.send(request, stream=True)
        except self._failures as error:
            raise _Refused(502, f"the upstream cannot be reached ({type(error).__name__})", "upstream_error") from None
        try:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                await _streamed(send, answer.status_code, answer.aiter_bytes(), conversation)
                return
            content = json.loads(await answer.aread())
        except (ValueError, *self._failures):
            raise _Refused(502, "the upstream's answer is not what it should be", "upstream_error") from None
        finally:
            await answer.aclose()
        await _reply(send, answer.status_code, json.dumps(conversation.restore_value(content), ensure_ascii=False).encode())


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused(400, "the request is no valid JSON") from None
    if not isinstance(found, dict):
        raise _Refused(400, "the request is no JSON object")
    return found


async def _streamed(send: Send, status: int, pieces: AsyncIterator[bytes], conversation: Conversation) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    stream = EventStream(conversation)
    async for piece in pieces:
        if out := stream.push(piece):
            await send({"type": "http.response.body", "body": out, "more_body": True})
    await send({"type": "http.response.body", "body": stream.finish()})


async def _reply(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _error(send: Send, status: int, why: str, kind: str) -> None:
    await _reply(send, status, json.dumps({"error": {"message": why, "type": kind, "param": None, "code": None}}).encode())
