"""An upload guard for any ASGI application (FastAPI, Starlette, Django): requests whose body holds personal identifiers are refused.

::

    app.add_middleware(UploadGuard)              # FastAPI, Starlette
    app = UploadGuard(app, paths=("/upload",))   # any other

Fails closed: a body that cannot be looked into (compressed, a picture, too long, an unknown encoding) is refused as well.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from metier.privacy.guard import json_texts, kinds_in, text_of

__all__ = ["UploadGuard"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_LOG = logging.getLogger("metier.privacy")
_BODIES = frozenset({"POST", "PUT", "PATCH"})
_LONGEST = 16 << 20


class _Unreadable(Exception):
    """Why a body cannot be looked into, with the HTTP status that says so."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class UploadGuard:
    """ASGI middleware that looks into the bodies of POST, PUT and PATCH before the application does."""

    def __init__(self, app: App, *, paths: Sequence[str] = ("/",), pack: str | None = None, least: float = 0.7, longest: int = _LONGEST) -> None:
        self.app = app
        self.paths = tuple(paths)
        self.pack = pack
        self.least = least
        self.longest = longest

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or answer 422 with the kinds that were found, by number and never by value."""
        if scope["type"] != "http" or scope["method"] not in _BODIES or not scope["path"].startswith(self.paths):
            await self.app(scope, receive, send)
            return
        try:
            body = await self._body(receive)
            found = self._search(body, {name.lower(): value.decode("latin-1") for name, value in scope["headers"]})
        except _Unreadable as error:
            await _answer(send, error.status, error.why, {})
            return
        except Exception as error:  # noqa: BLE001 - fails closed: what could not be searched is not let through, and nothing of it is shown
            _LOG.error("a request could not be searched: %s", type(error).__name__)
            await _answer(send, 500, "the body could not be searched", {})
            return
        if found:
            _LOG.info("refused an upload: %s", ", ".join(f"{kind} {count}" for kind, count in sorted(found.items())))
            await _answer(send, 422, "the body holds personal identifiers", dict(sorted(found.items())))
            return
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, again, send)

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Unreadable(400, "the request ended before its body")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.longest:
                raise _Unreadable(413, f"the body is longer than {self.longest} bytes, more than is looked into")
            if not message.get("more_body", False):
                return b"".join(parts)

    def _search(self, body: bytes, headers: dict[bytes, str]) -> Counter[str]:
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            raise _Unreadable(415, "a compressed body is not looked into; send it as it is")
        if not body:
            return Counter()
        return kinds_in(list(_texts(body, headers.get(b"content-type", ""))), pack=self.pack, least=self.least)


def _texts(body: bytes, content_type: str) -> Iterator[str]:
    """Yield the texts of a body by its type. Raises _Unreadable for what is no text."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        document = BytesParser(policy=HTTP).parsebytes(b"content-type: " + content_type.encode("latin-1") + b"\r\n\r\n" + body)
        if not document.is_multipart():
            raise _Unreadable(400, "the parts of the form cannot be told apart")
        for part in document.iter_parts():
            yield from filter(None, (part.get_filename(), str(part.get_param("name", "", header="content-disposition"))))
            payload = part.get_payload(decode=True)
            yield from _plain(payload if isinstance(payload, bytes) else b"", part.get_content_type())
        return
    yield from _plain(body, kind)


def _plain(data: bytes, kind: str) -> Iterator[str]:
    text = text_of(data)
    if text is None:
        raise _Unreadable(415, "the body is no text that can be searched for personal identifiers")
    if kind == "application/x-www-form-urlencoded":
        yield from (part for pair in parse_qsl(text, keep_blank_values=True) for part in pair)
    elif (found := json_texts(text)) is not None:
        yield from found
    elif kind in ("application/json", "application/x-ndjson"):
        raise _Unreadable(400, "the body is no valid JSON")
    else:
        yield text


async def _answer(send: Send, status: int, why: str, found: dict[str, int]) -> None:
    body = json.dumps({"error": {"message": why, "type": "personal_data" if found else "unsearchable", "found": found}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
