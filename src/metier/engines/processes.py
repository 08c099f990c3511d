"""Several processes on this machine, each fed over its own pipe. A child that dies is an error, never a hang."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from metier.engines.attempt import attempt, result
from metier.errors import MetierError

__all__ = ["Processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_TO_END = 5.0


@dataclass(frozen=True, slots=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Answer items until the parent hangs up. The parent alone reacts to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(function, item))


class Processes:
    """`count` processes, started anew (spawn) for each `map`. Scripts that use it need `if __name__ == "__main__":`."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise MetierError(f"{count} processes cannot work\n    -> name at least 1")
        self.count = count

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in order; at most `count` items are under way.

        Raises MetierError if the function fails in a child, or a child is killed. Whatever ends the iteration
        (an error, Ctrl-C, the caller's break) ends the children too.
        """
        context = multiprocessing.get_context("spawn")
        idle: deque[_Worker] = deque()
        busy: deque[_Worker] = deque()
        try:
            for item in items:
                if len(busy) == self.count:
                    yield _receive(busy, idle)
                if not idle:
                    idle.append(_start(context, function))
                worker = idle.popleft()
                _send(worker, item)
                busy.append(worker)
            while busy:
                yield _receive(busy, idle)
        finally:
            for worker in (*idle, *busy):
                _end(worker)


def _start(context: multiprocessing.context.SpawnContext, function: Callable[[Any], Any]) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _send(worker: _Worker, item: object) -> None:
    try:
        worker.pipe.send(item)
    except (BrokenPipeError, ConnectionResetError):
        raise _dead(worker) from None


def _receive(busy: deque[_Worker], idle: deque[_Worker]) -> Any:
    """Wait for the oldest item under way and return its result."""
    worker = busy[0]
    try:
        answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        raise _dead(worker) from None
    idle.append(busy.popleft())
    return result(answer)


def _dead(worker: _Worker) -> MetierError:
    worker.process.join(_SECONDS_TO_END)
    code = worker.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
    return MetierError(f"a worker process {how}\n    -> if memory ran out, use fewer processes; run again: finished chunks are kept")


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.terminate()
    worker.process.join(_SECONDS_TO_END)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
