"""Where trials are trained: each in a process of its own, on this machine or as a task of Ray. What a trial leaves in memory ends with its process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from metier.engines import Ray
from metier.engines.attempt import Answer, Failure, attempt
from metier.progress import Progress, Relayed, relay
from metier.training.sweep.job import Job, run_trial

__all__ = ["Workers", "local_workers", "ray_workers"]

_SECONDS_TO_END = 5.0
_RETRIES = 2


class Workers(Protocol):
    """Trains trials, several at a time."""

    def start(self, job: Job) -> None:
        """Begin a trial."""

    def next(self) -> tuple[int, Answer]:
        """Wait for a trial to end and return its number and its outcome, or how its process failed."""


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone: nobody would read its result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _child(pipe: Connection, job: Job, share: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone reacts to Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // share))
    pipe.send(("end", attempt(lambda item: run_trial(item, Relayed(lambda name, arguments: pipe.send((name, arguments)))), job)))


class _Local:
    """Processes on this machine. A trial whose process dies is begun once more from its last checkpoint, then it has failed."""

    def __init__(self, progress: Progress, share: int) -> None:
        self._progress = progress
        self._share = share
        self._running: dict[Connection, tuple[Job, BaseProcess]] = {}
        self._died: set[int] = set()

    def start(self, job: Job) -> None:
        """Begin a trial in a fresh process."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(theirs, job, self._share), daemon=True)
        process.start()
        theirs.close()
        self._running[ours] = (job, process)

    def next(self) -> tuple[int, Answer]:
        """Show the progress of all trials until one of them ends."""
        while True:
            for pipe in wait(list(self._running)):
                assert isinstance(pipe, Connection)
                job, process = self._running[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionResetError):
                    process.join(_SECONDS_TO_END)
                    del self._running[pipe]
                    if job.number in self._died:
                        return job.number, (False, Failure("Died", _how(process.exitcode), ""))
                    self._died.add(job.number)
                    self._progress.say(f"trial {job.number}: {_how(process.exitcode)}; it goes on from its last checkpoint")
                    self.start(job)
                    continue
                if kind == "end":
                    process.join(_SECONDS_TO_END)
                    del self._running[pipe]
                    return job.number, content
                self._show(job.number, kind, content)

    def _show(self, number: int, kind: str, content: tuple[Any, ...]) -> None:
        first, *rest = content
        relay(self._progress, kind, (f"trial {number}: {first}", *rest))

    def close(self) -> None:
        """End what still runs."""
        for pipe, (_, process) in self._running.items():
            pipe.close()
            process.terminate()
            process.join(_SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()


def _how(code: int | None) -> str:
    return f"its process was killed by signal {-code}" if code is not None and code < 0 else f"its process ended with status {code}"


@contextmanager
def local_workers(progress: Progress, parallel: int) -> Iterator[Workers]:
    """Yield workers of this machine, which share its threads; whatever ends the block ends them too."""
    workers = _Local(progress, parallel)
    try:
        yield workers
    finally:
        workers.close()


class _OnRay:
    """Tasks of Ray, each in a worker process of its own. A task whose worker or machine dies is begun again from its last checkpoint."""

    def __init__(self, ray: Any, parallel: int) -> None:
        self._ray = ray
        found = ray.cluster_resources()
        share = {"num_cpus": max(1, int(found.get("CPU", 1)) // parallel)}
        if found.get("GPU"):
            share["num_gpus"] = min(1.0, found["GPU"] / parallel)
        # max_calls: a worker process serves one trial only.
        self._task = ray.remote(max_retries=_RETRIES, max_calls=1, **share)(attempt)
        self._running: dict[Any, int] = {}

    def start(self, job: Job) -> None:
        """Hand a trial to Ray."""
        self._running[self._task.remote(run_trial, job)] = job.number

    def next(self) -> tuple[int, Answer]:
        """Wait for a task to end."""
        (done, *_), _ = self._ray.wait(list(self._running), num_returns=1)
        number = self._running.pop(done)
        try:
            answer: Answer = self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            return number, (False, Failure("Died", f"Ray gave it up after {_RETRIES} more attempts ({type(error).__name__})", ""))
        return number, answer


@contextmanager
def ray_workers(engine: Ray, parallel: int) -> Iterator[Workers]:
    """Yield workers of a Ray. Raises MissingExtra if it is not installed, MetierError if no Ray answers."""
    with engine.session() as ray:
        yield _OnRay(ray, parallel)
