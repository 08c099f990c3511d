"""Workers of Ray that run at the same time and know each other: each is told what a launcher would tell it, by the same variables.

Every worker is a process of its own with its own share of the processors and, where the cluster has accelerators, one of them to itself. If one is lost, all
are stopped: what they do together cannot go on without it.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metier.engines.attempt import Answer, attempt, result
from metier.engines.ray import Ray
from metier.errors import Fault, InputError, MetierError
from metier.progress import Progress, Relayed, relay

__all__ = ["together"]

_SECONDS_FOR_ROOM = 60.0
"""How long workers wait for room on a cluster that others use too, or that grows."""

_SECONDS_TO_LOOK = 0.5
_SECONDS_TO_FOLLOW = 5.0
"""How long the others are listened to once one has failed: the cause may be with them."""


class _Member:
    """One of the workers."""

    def __init__(self) -> None:
        self._said: deque[tuple[str, tuple[Any, ...]]] = deque()

    def meeting(self) -> tuple[str, int]:
        """Return an address of this machine and a port that is free there, where the workers meet."""
        host: str = importlib.import_module("ray.util").get_node_ip_address()
        with socket.socket() as listener:
            listener.bind((host, 0))
            return host, int(listener.getsockname()[1])

    def work(self, environment: dict[str, str], function: Callable[[Any, Progress], Any], item: Any) -> Answer:
        """Do the work and return what came of it."""
        os.environ.update(environment)
        progress = Relayed(lambda name, arguments: self._said.append((name, arguments)))
        return attempt(lambda given: function(given, progress), item)

    def reports(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return what was reported since the last call."""
        return [self._said.popleft() for _ in range(len(self._said))]


def together(engine: Ray, count: int, function: Callable[[Any, Progress], Any], item: Any, progress: Progress) -> Any:
    """Run `function(item, progress)` in `count` workers at the same time and return what the first of them returns; its progress is shown here.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set in each, as torchrun does. Raises MissingExtra if Ray is not installed, InputError if
    the cluster is too small, MetierError if no Ray answers, if a worker fails or if one is lost.
    """
    with engine.session() as ray, _started(ray, count) as members:
        host, port = ray.get(members[0].meeting.remote())
        # A worker sees its own accelerator and no other, so it is the first on what it sees of its machine.
        common = {"WORLD_SIZE": str(count), "LOCAL_RANK": "0", "MASTER_ADDR": host, "MASTER_PORT": str(port)}
        running = {member.work.remote(common | {"RANK": str(rank)}, function, item): rank for rank, member in enumerate(members)}
        return _outcome(_watch(ray, members[0], running, progress), count)


@contextmanager
def _started(ray: Any, count: int) -> Iterator[list[Any]]:
    """Yield workers for which there is room for all at once; they end with the block."""
    share = _share(ray, count)
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    room, members = ray.util.placement_group([share] * count, strategy="PACK"), []
    try:
        if not room.wait(_SECONDS_FOR_ROOM):
            remedy = "wait until others have ended, or lower engine.training_workers"
            raise MetierError(f"Ray had no room for {count} workers at once within {_SECONDS_FOR_ROOM:.0f} seconds\n    -> {remedy}")
        for rank in range(count):
            place = strategies.PlacementGroupSchedulingStrategy(placement_group=room, placement_group_bundle_index=rank)
            # Two threads: one works, the other says how far it is.
            means = {"num_cpus": share["CPU"], "num_gpus": share.get("GPU", 0), "max_concurrency": 2, "scheduling_strategy": place}
            members.append(ray.remote(_Member).options(**means).remote())
        yield members
    finally:
        for member in members:
            ray.kill(member)
        ray.util.remove_placement_group(room)


def _share(ray: Any, count: int) -> dict[str, int]:
    """Return what each worker gets: as many processors as let `count` workers stand on the machines, and an accelerator where there are any."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processors = [int(machine.get("CPU", 0)) for machine in machines]
    most = next((size for size in range(sum(processors) // count, 0, -1) if sum(number // size for number in processors) >= count), None)
    accelerators = sum(int(machine.get("GPU", 0)) for machine in machines)
    if most is None or 0 < accelerators < count:
        there = f"{sum(processors)} processors" + (f" and {accelerators} accelerators" if accelerators else "")
        raise InputError(Fault(f"{count} workers do not fit on a Ray of {there}", key="engine.training_workers", remedy="lower it, or add machines"))
    return {"CPU": most} | ({"GPU": 1} if accelerators else {})


def _watch(ray: Any, first: Any, running: dict[Any, int], progress: Progress) -> dict[int, Answer | None]:
    """Wait until all have ended or one has failed; return what each that ended left, None for one that was lost."""
    answers: dict[int, Answer | None] = {}
    failed: float | None = None
    while running and (failed is None or time.monotonic() - failed < _SECONDS_TO_FOLLOW):
        done, _ = ray.wait(list(running), timeout=_SECONDS_TO_LOOK)
        _show(ray, first, progress)
        for reference in done:
            rank = running.pop(reference)
            try:
                answers[rank] = ray.get(reference)
            except ray.exceptions.RayError:
                answers[rank] = None
        if failed is None and not all(answer is not None and answer[0] for answer in answers.values()):
            failed = time.monotonic()
    return answers


def _show(ray: Any, first: Any, progress: Progress) -> None:
    try:
        reports = ray.get(first.reports.remote())
    except ray.exceptions.RayError:
        # It is lost, which what it works on says too.
        return
    for name, arguments in reports:
        relay(progress, name, arguments)


def _outcome(answers: dict[int, Answer | None], count: int) -> Any:
    lost = sorted(rank for rank, answer in answers.items() if answer is None)
    if lost:
        what = f"worker {lost[0] + 1} of {count} was lost: its process or its machine has ended"
        raise MetierError(f"{what}\n    -> what was saved is kept: start the same command again, with any number of workers")
    failed = [answer for _, answer in sorted(answers.items()) if answer is not None and not answer[0]]
    return result(failed[0] if failed else answers[0] or (False, None))
