"""Several processes that train together, started by torchrun or `accelerate launch`.

All of them run the same command. The first (rank 0) walks the main path alone and holds the project; the others wait until it trains, are told what,
and then each works on its own rows of every step. They read the dataset, the base model and the checkpoints from the same folders.

What the launcher sets is read from the environment: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import distributed

from metier.digest import canonical_json
from metier.errors import InputError, ModelError
from metier.models import Base, resolve
from metier.training.launch import processes

__all__ = ["Job", "accelerator", "dismiss", "followed", "leading", "receive"]

_PATIENCE = timedelta(days=30)
"""How long a follower waits for the first process, which may have days of preparation before it trains."""

_told = Event()
"""Set once the followers have been told what to do: they wait for one training, or for none."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained: the workspace's key, the dataset's digest, the settings as JSON, names and digests of the base model and the teacher,
    and whether the weights are shared out.

    `members` of a joint training: name, store (relative to that of the project) and digest of the dataset.
    """

    key: str
    dataset: str
    settings: str
    base: tuple[str, str]
    teacher: tuple[str, str] | None = None
    sharded: bool = False
    members: tuple[tuple[str, str, str], ...] = ()


def accelerator() -> Accelerator:
    """Return the devices of this process, joined with the others if there are any."""
    if processes() == 1:
        return Accelerator()
    return Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])


@contextmanager
def leading(job: Job) -> Iterator[None]:
    """Tell the other processes, if there are any, what is trained, and let them go after the block. Raises ModelError if one of them ends in it."""
    if processes() == 1:
        yield
        return
    joined = accelerator()
    _send(canonical_json(asdict(job)), joined.device)
    try:
        with _together():
            yield
            _part(joined)
    finally:
        _told.set()


def dismiss() -> None:
    """Let the other processes go if they still wait: there was nothing to train."""
    if processes() > 1 and not _told.is_set():
        _told.set()
        joined = accelerator()
        _send(b"", joined.device)
        _part(joined)


@contextmanager
def followed() -> Iterator[None]:
    """Leave the other processes together at the end of the block, as a follower. Raises ModelError if one of them ends in it."""
    with _together():
        yield
        _part(accelerator())


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise ModelError(
            "another process of this training has ended\n    -> the last checkpoint is kept: start the same command again, with any number of processes"
        ) from error


def _part(joined: Accelerator) -> None:
    joined.wait_for_everyone()
    distributed.destroy_process_group()


def _send(message: bytes, device: torch.device) -> None:
    distributed.broadcast(torch.tensor([len(message)], device=device), 0)
    if message:
        distributed.broadcast(torch.frombuffer(bytearray(message), dtype=torch.uint8).to(device), 0)


def _receive(device: torch.device) -> bytes:
    length = torch.zeros(1, dtype=torch.int64, device=device)
    distributed.broadcast(length, 0)
    message = torch.zeros(int(length), dtype=torch.uint8, device=device)
    if len(message):
        distributed.broadcast(message, 0)
    return bytes(message.cpu().tolist())


def _lost(error: RuntimeError) -> bool:
    """Whether an error of a collective says that the other side is gone (gloo says so in words alone)."""
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in ("connection closed", "connection reset", "broken pipe"))


def receive(root: Path) -> tuple[Job, Base, Base | None] | None:
    """Wait, as a follower, for what is trained; None: nothing. Raises InputError if a model here is not the one that the first process has."""
    joined = accelerator()
    sent = _receive(joined.device)
    if not sent:
        _part(joined)
        return None
    job = Job(**json.loads(sent))
    return job, _same(job.base, root), None if job.teacher is None else _same(job.teacher, root)


def _same(named: Any, root: Path) -> Base:
    name, digest = named
    found = resolve(name, root=root)
    if found.digest != digest:
        raise InputError(f"the model {name} is another one here than at the first process\n    -> give every machine the same folder")
    return found
