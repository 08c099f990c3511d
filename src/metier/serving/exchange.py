"""Sending one answer: in one piece or as server-sent events, for no longer than the client listens and the settings allow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from metier.serving.answering import Answering, Ending
from metier.serving.service import Service
from metier.serving.wire import ChatRequest, Refused

__all__ = ["Exchange", "refusal"]

# Line ends to some readers of event streams, though not to the standard's; JSON may write them as escapes.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_LINE_ENDS).encode()


def refusal(refused: Refused) -> Response:
    """Return the response to a request that is refused."""
    return JSONResponse(refused.body, refused.status, refused.headers)


class Exchange(Response):
    """The response to one chat completion. If the client goes away, time runs out or the server stops, generation stops, too."""

    def __init__(self, service: Service, answering: Answering, request: ChatRequest) -> None:
        super().__init__()
        self._service = service
        self._answering = answering
        self._request = request
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; see the class."""
        work = asyncio.create_task(self._work(scope, receive, send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({work, gone}, timeout=self._service.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return
            left = gone.done()
            await self._stop(work, "cancelled" if left else "timeout")
            if not left:
                await self._error(Refused(504, "the answer took too long", "server_error", code="timeout"), scope, receive, send)
        except asyncio.CancelledError:
            await self._stop(work, "cancelled")
            raise
        finally:
            gone.cancel()

    async def _stop(self, work: asyncio.Task[None], reason: Literal["cancelled", "timeout"]) -> None:
        work.cancel()
        self._service.later(self._answering.abandon(reason))
        await asyncio.wait({work}, timeout=1)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answering.open()
            await (self._stream(send) if self._request.stream else self._whole(scope, receive, send))
        except Refused as refused:
            self._service.later(self._answering.abandon("error"))
            await self._error(refused, scope, receive, send)
        except Exception:
            self._service.later(self._answering.abandon("error"))
            raise

    async def _error(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._started:
            await refusal(refused)(scope, receive, send)
            return
        # The status has been sent; what is left is to say so in the stream and to end it without [DONE].
        async with asyncio.timeout(1):
            await send({"type": "http.response.body", "body": b"data: " + _json(refused.body) + b"\n\n"})

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        async for _ in self._answering.parts():
            pass
        content = self._answering.whole()
        ending = await self._answering.close()
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": None,
            "finish_reason": ending.reason,
        }
        document = {**self._head("chat.completion"), "choices": [choice], "usage": ending.usage, **_tail(ending)}
        await Response(_json(document), media_type="application/json", headers={"cache-control": "no-store"})(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._started = True
        await self._chunk(send, {"role": "assistant", "content": ""}, None)
        async for text in self._answering.parts():
            await self._chunk(send, {"content": text}, None)
        ending = await self._answering.close()
        await self._chunk(send, {}, ending)
        if self._with_usage:
            document = {**self._head("chat.completion.chunk"), "choices": [], "usage": ending.usage}
            await send({"type": "http.response.body", "body": b"data: " + _json(document) + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _chunk(self, send: Send, delta: Mapping[str, Any], ending: Ending | None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ending.reason if ending else None}
        document = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self._with_usage:
            document["usage"] = None
        if ending:
            document |= _tail(ending)
        await send({"type": "http.response.body", "body": b"data: " + _json(document) + b"\n\n", "more_body": True})

    @property
    def _with_usage(self) -> bool:
        return bool(self._request.stream_options and self._request.stream_options.include_usage)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self._answering.name}", "object": kind, "created": self._answering.created, "model": self._request.model}


def _tail(ending: Ending) -> dict[str, Any]:
    """Return what OpenAI's form has no place for: what was executed, and where that is on record."""
    ran = ending.executed
    about = {"release": ran.release, "adapter": ran.adapter, "base": ran.base, "entry": ending.entry, "guard": list(ending.fired)}
    return {"system_fingerprint": f"metier-{ran.release[:16]}", "metier": about}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
