"""Work as Ray tasks: on this machine or on a cluster. A task whose worker or machine dies is run again; results keep the items' order."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from metier.engines.attempt import attempt, result
from metier.errors import MetierError, MissingExtra

__all__ = ["Ray"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_RETRIES = 5
_AHEAD = 2
_SECONDS_TO_ANSWER = 5.0


def _package() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keep Ray from hiding accelerators, and from warning of it
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise MissingExtra("the engine ray", "ray", "ray") from None


class Ray:
    """Ray tasks at `address` (`auto`: the cluster that this machine is part of), or in a Ray of its own on this machine.

    Every machine of a cluster needs this version of Metier and of the pack, and the project's folder under the same path: what
    stages keep between their steps lies there. Items and results travel over Ray's own connections; where those leave one
    machine, set up Ray with TLS.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        self.address = address
        self.workers = workers

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in order; at most two items a processor are under way.

        Raises MetierError if the function fails, if no Ray answers at the address, or if workers die again and again.
        """
        with self.session() as ray:
            task = ray.remote(attempt).options(max_retries=_RETRIES)
            shared = ray.put(function)
            most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _AHEAD
            waiting: deque[Any] = deque()
            for item in items:
                if len(waiting) == most:
                    yield _fetch(ray, waiting.popleft())
                waiting.append(task.remote(shared, item))
            while waiting:
                yield _fetch(ray, waiting.popleft())

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Yield the package `ray`, connected; a connection that was made here ends with the block.

        Raises MissingExtra if the package is not installed, MetierError if no Ray answers at the address.
        """
        ray = _package()
        owned = not ray.is_initialized()
        if owned:
            self._connect(ray)
        try:
            yield ray
        finally:
            if owned:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        if self.address is not None and not _answers(self.address):
            raise self._unreachable("nothing listens there")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            with _own_signals():
                if self.address is None:
                    ray.init(num_cpus=self.workers, include_dashboard=False, **quiet)
                else:
                    ray.init(address=self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise self._unreachable(type(error).__name__) from None

    def _unreachable(self, why: str) -> MetierError:
        what = f"no Ray could be reached at {self.address or 'this machine'} ({why})"
        return MetierError(f"{what}\n    -> start one with: ray start --head, or write engine: {{kind: local}}")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does to this process: Ray makes it end the process at once, and its exit code would not say that work can go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answers(address: str) -> bool:
    """Return whether something listens at HOST:PORT; other forms of address (`auto`) are left to Ray, which waits minutes for nobody."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


def _fetch(ray: Any, reference: Any) -> Any:
    try:
        return result(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        what = f"a worker of Ray could not begin ({type(error.cause).__name__})"
        raise MetierError(f"{what}\n    -> install this version of Metier and the pack on every machine of the cluster") from None
    except ray.exceptions.RayError as error:
        remedy = "if memory ran out, use fewer workers; run again: finished chunks are kept"
        raise MetierError(f"Ray gave a piece of work up after {_RETRIES} more attempts ({type(error).__name__})\n    -> {remedy}") from None
