"""A dataset's records as examples of answers in words: those to learn from, and those to measure on."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
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

__all__ = ["examples_of", "noted", "nothing_to_train", "validation_sample"]

_TASK = "reading"

Item = TypeVar("Item")


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
    return heapq.nsmallest(limit, dataset_records(dataset, "validation"), key=lambda record: record.id)


def noted(items: Iterable[Item], progress: Progress) -> Iterator[Item]:
    """Yield items, and show how many were read."""
    progress.start(_TASK, None, "records")
    for item in items:
        yield item
        progress.advance(_TASK)
    progress.finish(_TASK)
