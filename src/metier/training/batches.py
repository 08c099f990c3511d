"""Examples as token ids, and rows that hold several of them without padding."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from metier.digest import digest_of
from metier.models import Chat, Encoded
from metier.records import Drop, Record

__all__ = ["WRITTEN", "Example", "Examples", "Labelled", "Origin", "Row", "encode_records", "order", "owners", "pack", "row_of"]

WRITTEN = "written by the base model"
"""What stands as the source of an example that the base model itself wrote."""

_STEP, _UNKNOWN = "training", "unknown"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text as token ids with what is to be answered: `targets[i]` (a class, a number or a row of numbers) at the token `places[i]`.

    `kinds` is 1 for the tokens of the second text of a pair, and empty where there is one text.
    """

    tokens: tuple[int, ...]
    places: tuple[int, ...]
    targets: tuple[Any, ...]
    kinds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


Example: TypeAlias = Encoded | Labelled
"""A conversation to learn to continue, or a text to learn to label."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of the record that an example was made of, beside its text."""

    id: str
    task: str
    domain: str
    language: str
    source: str
    unit: str
    """What is kept together where one person's influence is bounded: the person, or the row of the source where the record names none."""
    person: bool = False
    """Whether the unit is a person."""


@dataclass(slots=True)
class Examples:
    """Encoded records, where each came from, those that were left out, and how many spans were widened to whole words."""

    examples: list[Example] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    widened: int = 0

    def take(self, record: Record, example: Example, *, source: str | None = None) -> None:
        """Keep a record as this example; `source` stands for that of a record which comes from no file."""
        self.examples.append(example)
        source = source or (record.source.uri if record.source else "")
        # The same few words stand at every example: one copy of each is enough.
        task, domain, language, source = (sys.intern(word or _UNKNOWN) for word in (record.task, record.domain, record.language, source))
        row = record.id if record.source is None else f"{record.source.digest} {record.source.position}"
        self.origins.append(Origin(record.id, task, domain, language, source, record.subject or row, record.subject is not None))

    def drop(self, record: Record, reason: str) -> None:
        """Leave a record out."""
        self.drops.append(Drop(record.id, _STEP, reason, record.source))


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row. `sources[i]` is the position whose hidden state predicts `labels[i]`; 1-D int64 tensors.

    Labels of texts may be numbers (fp32) or, one column a label, rows of them. `kinds` tells the texts of pairs apart (None: no pairs).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    lengths: tuple[int, ...]
    sources: torch.Tensor
    labels: torch.Tensor
    kinds: torch.Tensor | None = None


def encode_records(records: Iterable[Record], chat: Chat, maximum: int) -> Examples:
    """Return the examples that fit and a drop for each record that does not: nothing is cut.

    Left out are conversations of more than `maximum` tokens and those without a token to learn. A plain text is as many examples as it takes.
    """
    found = Examples()
    for record in records:
        if not record.messages:
            windows = chat.encode_text(record.text, maximum) if record.text.strip() else []
            for window in windows:
                found.take(record, window)
            if not windows:
                found.drop(record, "nothing_to_learn")
            continue
        encoded = chat.encode(record.messages)
        if len(encoded) > maximum:
            found.drop(record, f"too_many_tokens:{len(encoded)}>{maximum}")
        elif not any(encoded.learn[1:]):
            found.drop(record, "nothing_to_learn")
        else:
            found.take(record, encoded)
    return found


def order(count: int, *key: Any) -> list[int]:
    """Return an order of so many things: a function of the key alone (the seed, the epoch and the like), so a resumed run finds it again."""
    generator = torch.Generator().manual_seed(int(digest_of(list(key))[:15], 16))
    return [int(index) for index in torch.randperm(count, generator=generator)]


def pack(lengths: Sequence[int], sequence: Iterable[int], capacity: int, *, open_rows: int = 16) -> list[list[int]]:
    """Return rows of example indices, each of at most `capacity` tokens (an example of its own may be longer).

    Best fit over a window of open rows, in the order given, so the mix of a row stays random.
    """
    rows: list[list[int]] = []
    waiting: list[tuple[int, list[int]]] = []
    for index in sequence:
        fitting = [place for place, (left, _) in enumerate(waiting) if left >= lengths[index]]
        if fitting:
            place = min(fitting, key=lambda item: waiting[item][0])
            left, row = waiting[place]
            row.append(index)
            waiting[place] = (left - lengths[index], row)
            continue
        waiting.append((capacity - lengths[index], [index]))
        if len(waiting) > open_rows:
            fullest = min(range(len(waiting)), key=lambda item: waiting[item][0])
            rows.append(waiting.pop(fullest)[1])
    return [*rows, *(row for _, row in waiting)]


def row_of(examples: Sequence[Example]) -> Row:
    """Return one packed row of these examples."""
    tokens: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    labels: list[Any] = []
    kinds: list[int] = []
    for example in examples:
        start = len(tokens)
        tokens.extend(example.tokens)
        positions.extend(range(len(example)))
        places, targets = _learnt(example) if isinstance(example, Encoded) else (example.places, example.targets)
        sources.extend(start + place for place in places)
        labels.extend(targets)
        kinds.extend((example.kinds if isinstance(example, Labelled) else ()) or (0,) * len(example))
    lengths = tuple(len(item) for item in examples)
    apart = torch.tensor(kinds) if any(kinds) else None
    return Row(torch.tensor(tokens), torch.tensor(positions), lengths, torch.tensor(sources), torch.tensor(labels), apart)


def owners(row: Row) -> torch.Tensor:
    """Return for each label of a row the place of its example in the row, 1-D int64."""
    ends = torch.tensor(row.lengths, device=row.sources.device).cumsum(dim=0)
    return torch.searchsorted(ends, row.sources, right=True)


def _learnt(example: Encoded) -> tuple[list[int], list[int]]:
    """Return the positions that predict a learnt token, and those tokens."""
    places = [place for place in range(1, len(example)) if example.learn[place]]
    return [place - 1 for place in places], [example.tokens[place] for place in places]
