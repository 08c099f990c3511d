"""A record made of another one, and where in a conversation its question stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from metier.digest import digest_of
from metier.prepare.augment.settings import AugmentSettings
from metier.records import Message, Record, identify

__all__ = ["KIND", "chance_of", "derive", "question_place", "with_question"]

KIND = "augment"
"""Key of the metadata that says which kind of variant a record is."""


def chance_of(settings: AugmentSettings, kind: str, record_id: str) -> random.Random:
    """Return the chance of a record for a kind of variant: it depends on nothing else."""
    return random.Random(digest_of([settings.seed, kind, record_id]))


def derive(parent: Record, messages: Sequence[Message], kind: str, *, task: str | None = None, **metadata: Any) -> Record:
    """Return a record made of `parent`: its split's keys (group, subject), source, language and label, and the parent's id."""
    kept = {name: value for name, value in parent.metadata.items() if name != "terms"}
    made = replace(
        parent,
        text="",
        messages=tuple(messages),
        spans=(),
        task=task or parent.task,
        parents=(parent.id,),
        metadata={**kept, KIND: kind, **metadata},
    )
    return replace(made, id=identify(made))


def question_place(record: Record) -> int | None:
    """Return the place of the question that the last learnt answer follows, or None."""
    for place in range(len(record.messages) - 1, 0, -1):
        if record.messages[place].learn:
            return place - 1 if record.messages[place - 1].role == "user" else None
    return None


def with_question(record: Record, text: str) -> tuple[Message, ...]:
    """Return the messages of a record with another question in the place of its own. Raises ValueError for a record without one."""
    place = question_place(record)
    if place is None:
        raise ValueError(f"record {record.id} has no question")
    return (*record.messages[:place], replace(record.messages[place], content=text), *record.messages[place + 1 :])
