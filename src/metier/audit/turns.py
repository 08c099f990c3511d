"""Group commit: callers in several threads queue up, one of them writes for all that wait, each is told how it ended.

There is no thread of its own. Who finds nobody writing leads: it takes what waits, commits it, wakes those callers, and hands the
lead to the oldest of those that came meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from metier.errors import LedgerError

__all__ = ["Turns"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Ticket(Generic[Item, Result]):
    """One caller in the queue. `alone` shares its commit with nobody."""

    __slots__ = ("alone", "error", "items", "leads", "results", "woken")

    def __init__(self, items: Sequence[Item], alone: bool) -> None:
        self.items = items
        self.alone = alone
        self.leads = False
        self.results: list[Result] | None = None
        self.error: str | None = None
        self.woken = threading.Event()


class Turns(Generic[Item, Result]):
    """Calls `commit` with the items of the callers that wait, never twice at a time; it returns one result for each item, in order."""

    def __init__(self, commit: Callable[[list[Item]], list[Result]], *, together: int) -> None:
        self._commit = commit
        self._together = together
        self._guard = threading.Lock()
        self._queue: deque[_Ticket[Item, Result]] = deque()
        self._led = False

    def take(self, items: Sequence[Item], *, alone: bool = False) -> list[Result]:
        """Return the results of one caller's items, which share a commit. Raises LedgerError if it failed; then none was kept."""
        ticket: _Ticket[Item, Result] = _Ticket(items, alone)
        with self._guard:
            self._queue.append(ticket)
            if not self._led:
                self._led = ticket.leads = True
        try:
            if not ticket.leads:
                ticket.woken.wait()
            while ticket.results is None and ticket.error is None:
                self._settle(self._drain())
        finally:
            self._leave(ticket)
        if ticket.results is None:
            raise LedgerError(ticket.error)
        return ticket.results

    def _drain(self) -> list[_Ticket[Item, Result]]:
        """Take what waits, oldest first, up to the size of one commit."""
        batch: list[_Ticket[Item, Result]] = []
        count = 0
        with self._guard:
            while self._queue:
                first = self._queue[0]
                if batch and (first.alone or batch[0].alone or count + len(first.items) > self._together):
                    break
                batch.append(self._queue.popleft())
                count += len(first.items)
        return batch

    def _settle(self, batch: list[_Ticket[Item, Result]]) -> None:
        """Commit a batch and tell every caller in it how that ended."""
        error = "the log was interrupted while it was written"
        try:
            results = self._commit([item for ticket in batch for item in ticket.items])
            place = 0
            for ticket in batch:
                ticket.results = results[place : place + len(ticket.items)]
                place += len(ticket.items)
        except LedgerError as fault:
            error = str(fault)
        finally:
            for ticket in batch:
                if ticket.results is None:
                    ticket.error = error
                ticket.woken.set()

    def _leave(self, ticket: _Ticket[Item, Result]) -> None:
        """Hand the lead on. A caller that was interrupted while it waited leaves the queue: what it wanted is not written later."""
        with self._guard:
            if ticket in self._queue:
                self._queue.remove(ticket)
            if not ticket.leads:
                return
            self._led = bool(self._queue)
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].woken.set()
