"""What all requests share: engine, guard, keys, counters, and the one place where events are kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from metier.events import Event, Record
from metier.serving.auth import ApiKeys
from metier.serving.engine import Engine
from metier.serving.guard import Guard, Inspected
from metier.serving.metrics import Metrics
from metier.serving.outgoing import Outgoing
from metier.serving.settings import ServingSettings
from metier.serving.ticket import Finished
from metier.serving.wire import Refused

__all__ = ["Service"]

_LOG = logging.getLogger("metier.serving")
_WRITERS = 32
"""Threads that wait for events to become durable; a recorder that shares commits gains from many."""


class Service:
    """The parts of one server. `record` keeps an event and returns its number; while it fails, nothing is answered."""

    def __init__(self, engine: Engine, guard: Guard, keys: ApiKeys, record: Record, settings: ServingSettings) -> None:
        self.engine = engine
        self.guard = guard
        self.keys = keys
        self.settings = settings
        self.metrics = Metrics(engine)
        self.began = int(time.time())
        self._record = record
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="metier-record")
        self._later: set[asyncio.Task[None]] = set()

    async def keep(self, event: Event) -> int:
        """Keep an event off the event loop and return its number. Raises Refused (503) if it could not be kept."""
        began = time.perf_counter()
        try:
            entry = await asyncio.get_running_loop().run_in_executor(self._writers, self._record, event)
        except Exception as error:
            _LOG.error("an event could not be kept: %s", type(error).__name__)
            self.metrics.unrecorded.inc()
            raise Refused(503, "the answer could not be put on record, so it is not given", "server_error", code="not_recorded", retry=5) from error
        self.metrics.recorded.observe(time.perf_counter() - began)
        return entry

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end although the request that asks for it is over."""
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def finish(self, seconds: float = 10.0) -> None:
        """Wait for what is still to be kept, then stop the engine."""
        if self._later:
            await asyncio.wait(set(self._later), timeout=seconds)
        await asyncio.to_thread(self.engine.stop)
        self._writers.shutdown(wait=False)

    def count_question(self, question: Inspected, seconds: float) -> None:
        """Count what the guard found in a question."""
        self.metrics.guard.labels("input").observe(seconds)
        for rule in question.fired:
            self.metrics.fired.labels(rule).inc()
        for kind, count in question.redacted.items():
            self.metrics.redacted.labels("input", kind).inc(count)

    def count_answer(self, finished: Finished | None, reason: str, outgoing: Outgoing | None) -> None:
        """Count an answer and what the guard found in it."""
        if outgoing is not None:
            self.metrics.guard.labels("output").observe(outgoing.seconds)
            for rule in outgoing.fired:
                self.metrics.fired.labels(rule).inc()
            for kind, count in outgoing.redacted.items():
                self.metrics.redacted.labels("output", kind).inc(count)
        if finished is not None:
            self.metrics.answered(finished, reason)
