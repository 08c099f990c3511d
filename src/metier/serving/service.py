"""What all requests share: those who work on them, guard, keys, counters, and the one place where events are kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from metier.events import Event, Record
from metier.models import Base
from metier.serving.auth import ApiKeys
from metier.serving.desk import Desk
from metier.serving.engine import Engine
from metier.serving.guard import Guard, Inspected
from metier.serving.metrics import Metrics
from metier.serving.outgoing import Outgoing
from metier.serving.released import Executed, Served, check_names
from metier.serving.settings import ServingSettings
from metier.serving.ticket import Finished
from metier.serving.wire import Refused
from metier.serving.work import Worker

__all__ = ["CHAT", "CLASSIFY", "SPANS", "Service", "open_workers"]

CHAT, CLASSIFY, SPANS = "/v1/chat/completions", "/v1/classify", "/v1/spans"
"""The routes on which releases answer."""

_LOG = logging.getLogger("metier.serving")
_WRITERS = 32
"""Threads that wait for events to become durable; a recorder that shares commits gains from many."""


class Service:
    """The parts of one server. `record` keeps an event and returns its number; while it fails, nothing is answered."""

    def __init__(self, workers: Sequence[Worker], guard: Guard, keys: ApiKeys, record: Record, settings: ServingSettings) -> None:
        self.workers = tuple(workers)
        self.engine = next((worker for worker in workers if isinstance(worker, Engine)), None)
        self.desk = next((worker for worker in workers if isinstance(worker, Desk)), None)
        self.guard = guard
        self.keys = keys
        self.settings = settings
        self.metrics = Metrics(workers)
        self.began = int(time.time())
        self._record = record
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="metier-record")
        self._later: set[asyncio.Task[None]] = set()

    @property
    def loaded(self) -> list[tuple[Executed, int]]:
        """The releases that are served, and how many tokens a request to each may have."""
        return [(item, worker.longest(item.name)) for worker in self.workers for item in worker.loaded]

    @property
    def alive(self) -> bool:
        """Whether requests are being worked on."""
        return all(worker.alive for worker in self.workers)

    def start(self) -> None:
        """Let everybody begin to work."""
        for worker in self.workers:
            worker.start()

    def find(self, name: str, route: str) -> Executed:
        """Return the release of this name. Raises Refused if there is none (404), or if it answers on another route than this one (400)."""
        found = next((item for worker in self.workers if (item := worker.find(name)) is not None), None)
        if found is None:
            raise Refused(404, "there is no such model here; GET /v1/models lists what is served", param="model", code="model_not_found")
        own = self.route_of(name)
        if own != route:
            raise Refused(400, f"the model {found.name} does not answer on this route: ask it by POST {own}", param="model", code="wrong_endpoint")
        return found

    def route_of(self, name: str) -> str:
        """Return the route on which a release that is served answers."""
        if self.desk is None or self.desk.find(name) is None:
            return CHAT
        return SPANS if self.desk.labelling(name).task == "tagging" else CLASSIFY

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
        """Wait for what is still to be kept, then end all work."""
        if self._later:
            await asyncio.wait(set(self._later), timeout=seconds)
        for worker in self.workers:
            await asyncio.to_thread(worker.stop)
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


def open_workers(base: Base, releases: Sequence[Served], settings: ServingSettings, *, dtype: torch.dtype | None = None) -> list[Worker]:
    """Load releases: an engine for those that write answers, a desk for those that label texts, each only where it has something to do.

    Raises what `Engine.open` and `Desk.open` raise, and InputError for names that cannot be served.
    """
    check_names(releases)
    writing, labelling = [item for item in releases if not item.labels], [item for item in releases if item.labels]
    found: list[Worker] = [Engine.open(base, writing, settings, dtype=dtype)] if writing else []
    return [*found, *([Desk.open(base, labelling, settings, dtype=dtype)] if labelling else [])]
