"""Spans as tags of words (BIO) and back. Tag 0 is outside; type k begins with 2k + 1 and goes on with 2k + 2."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.records import Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["best_tags", "crossing", "spans_of", "tags_of"]


def crossing(spans: Sequence[Span]) -> tuple[Span, Span] | None:
    """Return the first two spans that share a character (one inside the other, or crossing), or None."""
    ordered = sorted(spans, key=lambda span: (span.start, -span.end))
    for first, second in pairwise(ordered):
        if second.start < first.end:
            return first, second
    return None


def tags_of(places: Sequence[tuple[int, int]], spans: Sequence[Span], labels: Sequence[str]) -> tuple[list[int], int]:
    """Return a tag for each word, and how many spans had to be widened because a border of theirs falls inside a word.

    `places` are the words; spans have to be apart (see `crossing`). Raises ValueError for a type that is not among `labels`.
    """
    tags = [0] * len(places)
    widened = 0
    index = 0
    for span in sorted(spans, key=lambda item: item.start):
        kind = labels.index(span.type)
        while index < len(places) and places[index][1] <= span.start:
            index += 1
        first = index
        while index < len(places) and places[index][0] < span.end:
            if tags[index] == 0:
                tags[index] = 2 * kind + (1 if index == first else 2)
            index += 1
        inside = places[first:index]
        widened += bool(inside) and (inside[0][0] < span.start or inside[-1][1] > span.end)
        # A word that two spans share stays with the first of them.
        index = max(first, index - 1)
    return tags, widened


def spans_of(text: str, places: Sequence[tuple[int, int]], tags: Sequence[int], labels: Sequence[str]) -> tuple[Span, ...]:
    """Return the spans that tags of words describe; an inside tag that goes on with nothing begins a span."""
    found: list[tuple[int, int, int]] = []
    before = 0
    for (start, end), tag in zip(places, tags, strict=True):
        if tag and tag % 2 == 0 and before in (tag, tag - 1):
            found[-1] = (found[-1][0], end, found[-1][2])
        elif tag:
            found.append((start, end, (tag - 1) // 2))
        before = tag
    return tuple(Span(start, end, labels[kind], text[start:end]) for start, end, kind in found)


def best_tags(scores: Sequence[NDArray[Any]]) -> list[list[int]]:
    """Return for each text the most probable row of tags in which nothing goes on that did not begin (Viterbi, 1967).

    `scores` are log-probabilities [words, tags] of each text. All texts are walked together, word by word.
    """
    if not scores:
        return []
    count = scores[0].shape[1]
    lengths = np.asarray([len(item) for item in scores])
    longest = int(lengths.max(initial=0))
    padded = np.zeros((len(scores), longest, count), dtype=np.float32)
    for index, item in enumerate(scores):
        padded[index, : len(item)] = item
    allowed = np.zeros((count, count), dtype=np.float32)
    for tag in range(2, count, 2):
        allowed[:, tag] = -np.inf
        allowed[[tag - 1, tag], tag] = 0
    start = np.where(np.arange(count) % 2 == 0, -np.inf, 0).astype(np.float32)
    start[0] = 0
    if not longest:
        return [[] for _ in scores]
    reached = padded[:, 0] + start
    came = np.zeros((len(scores), longest, count), dtype=np.int16)
    for step in range(1, longest):
        through = reached[:, :, None] + allowed[None]
        came[:, step] = through.argmax(axis=1)
        forward = through.max(axis=1) + padded[:, step]
        reached = np.where((step < lengths)[:, None], forward, reached)
    ends = reached.argmax(axis=1)
    rows = []
    for index, length in enumerate(lengths):
        row = [int(ends[index])] * int(length)
        for step in range(int(length) - 1, 0, -1):
            row[step - 1] = int(came[index, step, row[step]])
        rows.append(row)
    return rows
