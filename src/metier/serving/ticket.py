"""How an answer gets from the engine's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from metier.serving.released import Executed

__all__ = ["Finish", "Finished", "Post", "Ticket"]

Finish: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Finished:
    """How an answer ended, what made it and what it took; times in seconds since the request was queued."""

    reason: Finish
    executed: Executed
    prompt_tokens: int
    completion_tokens: int
    queued: float
    first: float | None
    seconds: float


_Item: TypeAlias = str | Finished | Exception


class Ticket:
    """Yields the pieces of one answer; afterwards `finished` says how it ended. Made on the event loop that will read it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.cancelled = False
        self.finished: Finished | None = None
        self.ended = False
        """Whether nothing more will come: the answer is finished, or the engine failed."""
        self._wake = wake
        self._items: asyncio.Queue[_Item] = asyncio.Queue()

    def cancel(self) -> None:
        """Ask the engine to stop at its next step; the ticket still ends, with the reason `cancelled`."""
        self.cancelled = True
        self._wake()

    def deliver(self, items: list[_Item]) -> None:
        """Take what the engine sent; called on the event loop."""
        for item in items:
            self._items.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield text until the answer ends. Raises what the engine failed with."""
        while not self.ended:
            item = await self._items.get()
            self.ended = not isinstance(item, str)
            if isinstance(item, str):
                yield item
            elif isinstance(item, Finished):
                self.finished = item
            else:
                raise item


class Post:
    """Collects what one step has to say and wakes each event loop once for all of it."""

    def __init__(self) -> None:
        self._out: dict[Ticket, list[_Item]] = {}

    def send(self, ticket: Ticket, item: _Item) -> None:
        """Add something for a ticket; it leaves with the next `flush`."""
        self._out.setdefault(ticket, []).append(item)

    def flush(self) -> None:
        """Hand everything over. A loop that is closed already gets nothing: nobody listens there."""
        out, self._out = self._out, {}
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, list[_Item]]]] = {}
        for ticket, items in out.items():
            loops.setdefault(ticket.loop, []).append((ticket, items))
        for loop, found in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, found)
            except RuntimeError:
                continue


def _deliver(found: list[tuple[Ticket, list[_Item]]]) -> None:
    for ticket, items in found:
        ticket.deliver(items)
