"""A dataset's records as examples of answers in words: those to learn from, and those to measure on."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from metier.artifacts import Artifact
from metier.errors import Fault, InputError
from metier.models import Base, Chat
from metier.progress import Progress
from metier.records import Record
from metier.shards import dataset_records
from metier.training.batches import encode_records
from metier.training.examples import Examples
from metier.training.settings import TrainingSettings
from metier.training.tokenised import tokenised

__all__ = ["examples_of", "first_of_each", "noted", "nothing_to_train", "validation_sample"]

_TASK = "reading"

Item = TypeVar("Item")
Group = TypeVar("Group", bound=Hashable)


def examples_of(dataset: Artifact, base: Base, chat: Chat, settings: TrainingSettings, *, kept: Path | None, progress: Progress) -> tuple[Examples, Examples]:
    """Return the examples of a dataset's training split and those of its validation sample; what was tokenised before is taken from `kept`.

    Raises InputError where there is nothing to learn from.
    """
    maximum = settings.batch.maximum_tokens
    about = {"dataset": dataset.digest, "template": chat.digest, "virtual": chat.virtual, "maximum": maximum}

    def train(path: Path | None) -> Examples:
        return encode_records(noted(dataset_records(dataset, "train"), progress), chat, maximum, path=path)

    def sample(path: Path | None) -> Examples:
        return encode_records(validation_sample(dataset, settings.validation.limit), chat, maximum, path=path)

    taught = tokenised(kept, base, about | {"split": "train"}, train)
    if not len(taught):
        raise nothing_to_train(taught, "look at the data with: metier data inspect, or raise training.batch.maximum_tokens")
    return taught, tokenised(kept, base, about | {"split": "validation", "limit": settings.validation.limit}, sample)


def nothing_to_train(taught: Examples, remedy: str) -> InputError:
    """Return the error that there is no example to train on."""
    first = f"; all {len(taught.drops)} were left out (first: {taught.drops[0].reason})" if taught.drops else ""
    return InputError(Fault(f"there is no example to train on{first}", remedy=remedy))


def validation_sample(dataset: Artifact, limit: int) -> list[Record]:
    """Return the validation examples in the order of their ids, which are digests: a fixed random sample."""
    return heapq.nsmallest(limit, dataset_records(dataset, "validation"), key=_id)


def first_of_each(records: Iterable[Record], group: Callable[[Record], Group | None], limit: int) -> dict[Group, list[Record]]:
    """Return the first `limit` records of each group in the order of their ids: a fixed random sample. A record of no group (None) is passed over.

    Records are looked at one after the other, and no more than twice as many are held as are returned.
    """
    found: dict[Group, list[Record]] = {}
    for record in records:
        if (name := group(record)) is not None:
            held = found.setdefault(name, [])
            held.append(record)
            if len(held) >= 2 * max(1, limit):
                held[:] = heapq.nsmallest(limit, held, key=_id)
    return {name: heapq.nsmallest(limit, held, key=_id) for name, held in found.items()}


def _id(record: Record) -> str:
    return record.id


def noted(items: Iterable[Item], progress: Progress) -> Iterator[Item]:
    """Yield items, and show how many were read."""
    progress.start(_TASK, None, "records")
    for item in items:
        yield item
        progress.advance(_TASK)
    progress.finish(_TASK)
