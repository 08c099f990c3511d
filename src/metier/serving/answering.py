"""One request from the guard's look at the question to the last entry in the log.

What is kept, and when: for an answer in one piece an event is durable before its first byte leaves. For a stream an event `opened` is
durable before the first text leaves, and an event `answered` before the last piece, which says how it ended. So every answer that a
client has received whole is in the log, and of one that was cut off by a crash the log says that it had begun. If an event cannot be
kept, nothing more is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from metier.errors import MetierError
from metier.events import Event, now
from metier.models import GenerationSettings
from metier.serving.guard import Inspected, language_of, said
from metier.serving.outgoing import Outgoing
from metier.serving.released import Executed
from metier.serving.service import CHAT, Service
from metier.serving.ticket import Ticket
from metier.serving.wire import ChatRequest, Refused, to_messages, to_settings
from metier.serving.work import Busy, EngineFailed

__all__ = ["Answering", "Ending", "Reason"]

Reason: TypeAlias = Literal["stop", "length", "content_filter", "cancelled", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended, for the client: reason, usage, what was executed and the number of its log entry."""

    reason: Reason
    usage: Mapping[str, int]
    executed: Executed
    entry: int
    fired: tuple[str, ...]


class Answering:
    """The work on one request. `open`, then `parts`, then `close`; `abandon` instead of `close` where nobody listens any more."""

    def __init__(self, service: Service, request: ChatRequest, *, name: str, key: str) -> None:
        executed, engine = service.find(request.model, CHAT), service.engine
        assert engine is not None
        self.name = name
        self.stream = bool(request.stream)
        self._service, self._engine = service, engine
        self._key = key
        self._subject = request.user or None
        self._executed = executed
        self._settings: GenerationSettings = to_settings(request, most_tokens=service.settings.max_new_tokens)
        self._messages = to_messages(request)
        self._question = Inspected(())
        self._outgoing: Outgoing | None = None
        self._ticket: Ticket | None = None
        self._opened: int | None = None
        self._sent: list[str] = []
        self.created = int(time.time())
        self._asked = time.monotonic()
        self._closed = False

    async def open(self) -> None:
        """Look at the question and queue it. Raises Refused for what gets no answer."""
        service = self._service
        began = time.perf_counter()
        try:
            self._question = await asyncio.to_thread(service.guard.inspect, self._messages)
        except MetierError:
            raise Refused(400, "the guard could not look at this question", param="messages", code="guard_failed") from None
        service.count_question(self._question, time.perf_counter() - began)
        self._outgoing = Outgoing(service.guard, self._question, service.settings.hold_back, whole=not self.stream)
        if self._question.refusal is None:
            try:
                tokens = await asyncio.to_thread(self._engine.encode, self._question.messages)
            except MetierError:
                raise Refused(400, "the base model's chat template cannot take these messages", param="messages", code="invalid_messages") from None
            self._ticket = self._submit(tokens)
        if self.stream:
            try:
                self._opened = await service.keep(self._event("opened", None))
            except BaseException:
                self._cancel()
                raise

    def _submit(self, tokens: list[int]) -> Ticket:
        try:
            return self._engine.submit(self._executed.name, tokens, self._settings)
        except ValueError:
            limit = self._engine.context
            what = f"the question has {len(tokens)} tokens and up to {self._settings.max_new_tokens} more are asked for; together at most {limit} are possible"
            raise Refused(400, what, param="messages", code="context_length_exceeded") from None
        except Busy as busy:
            raise Refused(429, "all rows are taken and the queue is full", "rate_limit_error", code="queue_full", retry=busy.seconds) from None
        except EngineFailed:
            raise Refused(503, "the server is stopping", "server_error", code="unavailable", retry=5) from None

    async def parts(self) -> AsyncIterator[str]:
        """Yield the answer's text as it may be sent. Raises Refused if the engine failed."""
        if self._question.refusal is not None:
            yield self._note(said(self._question.refusal, language_of(self._messages[-1].content)))
            return
        assert self._ticket is not None
        assert self._outgoing is not None
        try:
            async for piece in self._ticket:
                if text := self._outgoing.push(piece):
                    yield self._note(text)
                if self._outgoing.refusal is not None:
                    self._cancel()
                    break
        except EngineFailed:
            raise Refused(500, "the engine failed while it worked on this request", "server_error", code="engine_failed") from None
        except MetierError:
            self._cancel()
            raise Refused(500, "the guard failed while it looked at this answer", "server_error", code="guard_failed") from None
        if text := self._outgoing.finish():
            yield self._note(text)

    def _note(self, text: str) -> str:
        self._sent.append(text)
        return text

    def whole(self) -> str:
        """Return the whole text of an answer that is sent in one piece: the refusal alone where a rule refused it."""
        refusal = self._outgoing.refusal if self._outgoing else None
        if refusal is not None:
            self._sent = [said(refusal, language_of("".join(self._sent)))]
        return "".join(self._sent)

    async def close(self) -> Ending:
        """Keep the answer and return how it ended. Raises Refused (503) if it could not be kept."""
        self._closed = True
        await self._end_of_ticket()
        reason = self._reason()
        entry = await self._service.keep(self._event("answered", reason))
        self._count(reason)
        return Ending(reason, self._usage(), self._ran(), entry, self._fired())

    async def abandon(self, reason: Literal["cancelled", "timeout", "error"]) -> None:
        """Stop generating and keep how far the answer came. Does nothing after `close`, or where nothing had begun."""
        if self._closed or (self._ticket is None and self._opened is None):
            return
        self._closed = True
        self._cancel()
        await self._end_of_ticket()
        with contextlib.suppress(Refused):
            await self._service.keep(self._event("answered", reason))
        self._count(reason)

    def _cancel(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()

    async def _end_of_ticket(self) -> None:
        """Read a ticket to its end, so that what the engine has done is known."""
        if self._ticket is None or self._ticket.ended:
            return
        self._ticket.cancel()
        with contextlib.suppress(EngineFailed, TimeoutError):
            async with asyncio.timeout(5):
                async for _ in self._ticket:
                    pass

    def _reason(self) -> Reason:
        if self._question.refusal is not None or (self._outgoing is not None and self._outgoing.refusal is not None):
            return "content_filter"
        finished = self._ticket.finished if self._ticket else None
        return "error" if finished is None else finished.reason

    def _ran(self) -> Executed:
        """What was executed, as the engine says it; where nothing was, the release that would have been."""
        finished = self._ticket.finished if self._ticket else None
        return self._executed if finished is None else finished.executed

    def _usage(self) -> dict[str, int]:
        finished = self._ticket.finished if self._ticket else None
        prompt, completion = (finished.prompt_tokens, finished.completion_tokens) if finished else (0, 0)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _fired(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self._question.fired, *(self._outgoing.fired if self._outgoing else ())]))

    def _count(self, reason: Reason) -> None:
        finished = self._ticket.finished if self._ticket else None
        self._service.count_answer(finished, reason, self._outgoing)

    def _event(self, phase: Literal["opened", "answered"], reason: Reason | None) -> Event:
        ran, settings = self._ran(), self._settings
        finished = self._ticket.finished if self._ticket else None
        facts: dict[str, Any] = {
            "id": f"chatcmpl-{self.name}",
            "request": self.name,
            "phase": phase,
            "key": self._key,
            **ran.as_facts(),
            "stream": self.stream,
            "settings": {"max_tokens": settings.max_new_tokens, "temperature": settings.temperature, "top_p": settings.top_p, "seed": settings.seed},
            "guard": {"rules": list(self._fired()), "redacted": dict(self._question.redacted)},
        }
        body: dict[str, Any] = {"messages": [{"role": message.role, "content": message.content} for message in self._question.messages]}
        if phase == "answered":
            seconds = {"total": round(time.monotonic() - self._asked, 6)}
            if finished is not None:
                seconds |= {"queued": round(finished.queued, 6), "first_token": round(finished.first or 0.0, 6)}
            facts |= {"finish": reason, "executed": finished is not None, "usage": self._usage(), "seconds": seconds, "opened": self._opened}
            facts["guard"]["redacted_answer"] = dict(self._outgoing.redacted) if self._outgoing else {}
            body["answer"] = "".join(self._sent)
        if settings.stop:
            body["stop"] = list(settings.stop)
        return Event("prediction", f"key:{self._key}", now(), facts, body, self._subject)
