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
from metier.training.examples import Collector, Example, Examples, Labelled

__all__ = ["WRITTEN", "Row", "encode_records", "order", "owners", "pack", "row_at", "row_of"]

_TOGETHER = 256
"""Records that the tokenizer is given at once."""

WRITTEN = "written by the base model"
"""What stands as the source of an example that the base model itself wrote."""


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
    members: tuple[int, ...] = ()
    """Of a joint training, the member whose each example is."""
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


def row_at(examples: Examples, places: Sequence[int]) -> Row:
    """Return one packed row of the examples at these places, with whose each is where several members train together, and with what a teacher says."""
    row = row_of([examples.examples[place] for place in places])
    if (said := examples.said_of(places)) is not None:
        row = replace(row, said=torch.from_numpy(said))
    return replace(row, members=tuple(examples.member_of(place) for place in places)) if examples.members else row


def owners(row: Row) -> torch.Tensor:
    """Return for each label of a row the place of its example in the row, 1-D int64."""
    ends = torch.tensor(row.lengths, device=row.sources.device).cumsum(dim=0)
    return torch.searchsorted(ends, row.sources, right=True)


def _learnt(example: Encoded) -> tuple[list[int], list[int]]:
    """Return the positions that predict a learnt token, and those tokens."""
    places = [place for place in range(1, len(example)) if example.learn[place]]
    return [place - 1 for place in places], [example.tokens[place] for place in places]
