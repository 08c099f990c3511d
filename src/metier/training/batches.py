"""Examples as token ids, and rows that hold several of them without padding."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from metier.digest import digest_of
from metier.models import Chat, Encoded
from metier.records import Record
from metier.training.alike import Family, families
from metier.training.examples import Collector, Example, Examples, Labelled

__all__ = ["WRITTEN", "Row", "encode_records", "order", "pack", "row_at", "row_of", "shares_beginnings"]

_TOGETHER = 256
"""Records that the tokenizer is given at once."""

WRITTEN = "written by the base model"
"""What stands as the source of an example that the base model itself wrote."""


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row. `sources[i]` is the position whose hidden state predicts `labels[i]`, `owners[i]` the place of its example; 1-D int64 tensors.

    Labels of texts may be numbers (fp32) or, one column a label, rows of them. `kinds` tells the texts of pairs apart (None: no pairs).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    lengths: tuple[int, ...]
    """Tokens of each piece: of an example, of what several begin with, or of how one of them goes on."""
    sources: torch.Tensor
    labels: torch.Tensor
    owners: torch.Tensor
    kinds: torch.Tensor | None = None
    behind: tuple[int | None, ...] = ()
    """The piece that each goes on from (see `metier.models.attention.Packed`); empty where none does."""
    members: tuple[int, ...] = ()
    """Of a joint training, the member whose each example is."""
    read: int = 0
    """Tokens of all examples, a beginning that several have counted for each."""
    said: torch.Tensor | None = None
    """What a teacher says of each label [labels, outputs], fp32; not numbers where it says nothing."""


def encode_records(records: Iterable[Record], chat: Chat, maximum: int, *, path: Path | None = None) -> Examples:
    """Return the examples that fit and a drop for each record that does not: nothing is cut.

    Left out are conversations of more than `maximum` tokens and those without a token to learn. A plain text is as many examples as it takes.
    They are kept in the file `path`, or (None) in memory.
    """
    before = chat.broken_up
    stream = iter(records)
    with Collector("learn", path) as found:
        while batch := list(islice(stream, _TOGETHER)):
            talks = iter(chat.encode_all([record.messages for record in batch if record.messages]))
            for record in batch:
                if record.messages:
                    _take(found, record, next(talks), maximum)
                    continue
                windows = chat.encode_text(record.text, maximum) if record.text.strip() else []
                for window in windows:
                    found.take(record, window)
                if not windows:
                    found.drop(record, "nothing_to_learn")
    return found.collected(chat.broken_up - before)


def _take(found: Collector, record: Record, encoded: Encoded, maximum: int) -> None:
    if len(encoded) > maximum:
        found.drop(record, f"too_many_tokens:{len(encoded)}>{maximum}")
    elif not any(encoded.learn[1:]):
        found.drop(record, "nothing_to_learn")
    else:
        found.take(record, encoded)


def order(count: int, *key: Any) -> array[int]:
    """Return an order of so many things: a function of the key alone (the seed, the epoch and the like), so a resumed run finds it again."""
    generator = torch.Generator().manual_seed(int(digest_of(list(key))[:15], 16))
    return array("q", torch.randperm(count, generator=generator).numpy().tobytes())


def pack(lengths: Sequence[int], sequence: Iterable[int], capacity: int, *, open_rows: int = 16) -> Iterator[list[int]]:
    """Yield rows of example indices, each of at most `capacity` tokens (an example of its own may be longer).

    Best fit over a window of open rows, in the order given, so the mix of a row stays random; the time grows with the examples, not faster.
    """
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
            yield waiting.pop(fullest)[1]
    yield from (row for _, row in waiting)


def row_of(examples: Sequence[Example], *, shared: bool = False) -> Row:
    """Return one packed row of these examples; `shared`: those that begin alike hold their beginning once."""
    whole = [Family((number,), 0) for number in range(len(examples))]
    pieces = _Pieces()
    for family in families([example.tokens for example in examples]) if shared else whole:
        pieces.add(family, [examples[number] for number in family.members])
    return pieces.row(sum(map(len, examples)))


def shares_beginnings(examples: Examples) -> bool:
    """Return whether rows of these examples hold once what several of them begin with.

    They do not where each has a member's own part of the model before it, nor for labels: an encoder's tokens see what comes after them.
    """
    return not examples.members and examples.to_continue


class _Pieces:
    """A row that grows by one family of examples after the other."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._kinds: list[int] = []
        self._lengths: list[int] = []
        self._behind: list[int | None] = []
        self._answers: list[tuple[int, int, Any]] = []

    def add(self, family: Family, examples: Sequence[Example]) -> None:
        """Put the examples of a family into the row."""
        start, before = len(self._tokens), None
        if family.common:
            before = len(self._lengths)
            self._put(examples[0], 0, family.common, None)
        for number, example in zip(family.members, examples, strict=True):
            shift = len(self._tokens) - family.common
            self._put(example, family.common, len(example), before)
            places, targets = _learnt(example) if isinstance(example, Encoded) else (example.places, example.targets)
            self._answers += [(place + (start if place < family.common else shift), number, target) for place, target in zip(places, targets, strict=True)]

    def _put(self, example: Example, first: int, last: int, before: int | None) -> None:
        self._tokens.extend(example.tokens[first:last])
        self._positions.extend(range(first, last))
        self._kinds.extend(((example.kinds if isinstance(example, Labelled) else ()) or (0,) * len(example))[first:last])
        self._lengths.append(last - first)
        self._behind.append(before)

    def row(self, read: int) -> Row:
        """Return the row of what was put in."""
        sources, owners, labels = zip(*self._answers, strict=True) if self._answers else ((), (), ())
        return Row(
            torch.tensor(self._tokens),
            torch.tensor(self._positions),
            tuple(self._lengths),
            torch.tensor(sources, dtype=torch.int64),
            torch.tensor(labels),
            torch.tensor(owners, dtype=torch.int64),
            kinds=torch.tensor(self._kinds) if any(self._kinds) else None,
            behind=tuple(self._behind) if any(before is not None for before in self._behind) else (),
            read=read,
        )


def row_at(examples: Examples, places: Sequence[int]) -> Row:
    """Return one packed row of the examples at these places, with whose each is where several members train together, and with what a teacher says."""
    row = row_of([examples.examples[place] for place in places], shared=shares_beginnings(examples))
    if (said := examples.said_of(places)) is not None:
        row = replace(row, said=torch.from_numpy(said))
    return replace(row, members=tuple(examples.member_of(place) for place in places)) if examples.members else row


def _learnt(example: Encoded) -> tuple[list[int], list[int]]:
    """Return the positions that predict a learnt token, and those tokens."""
    places = [place for place in range(1, len(example)) if example.learn[place]]
    return [place - 1 for place in places], [example.tokens[place] for place in places]
