from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.models.tags import best_tags, crossing, spans_of, tags_of
from metier.models.words import words
from metier.records import Span

LABELS = ("Color", "Thing")


def found(text: str, *pieces: tuple[str, str]) -> list[Span]:
    return [Span(text.index(piece), text.index(piece) + len(piece), kind, piece) for piece, kind in pieces]


@pytest.mark.parametrize(
    ("text", "pieces", "tags"),
    [
        ("the light red pen lies here", [("light red", "Color"), ("pen", "Thing")], [0, 1, 2, 3, 0, 0]),
        ("红色毛笔在左边", [("红色", "Color"), ("毛笔", "Thing")], [1, 2, 3, 4, 0, 0, 0]),
        ("red-green", [("red", "Color"), ("green", "Color")], [1, 0, 1]),
        ("红绿", [("红", "Color"), ("绿", "Color")], [1, 1]),
    ],
)
def test_spans_become_tags_and_come_back(text: str, pieces: list[tuple[str, str]], tags: list[int]) -> None:
    spans = found(text, *pieces)
    assert tags_of(words(text), spans, LABELS) == (tags, 0)
    assert list(spans_of(text, words(text), tags, LABELS)) == spans


def test_a_span_that_ends_inside_a_word_is_widened_and_counted() -> None:
    text = "two redpens here"
    tags, widened = tags_of(words(text), [Span(4, 7, "Color", "red")], LABELS)
    assert (tags, widened) == ([0, 1, 0], 1)
    assert spans_of(text, words(text), tags, LABELS) == (Span(4, 11, "Color", "redpens"),)


def test_two_spans_in_one_word_leave_it_to_the_first() -> None:
    text = "redpens"
    tags, widened = tags_of(words(text), [Span(0, 3, "Color"), Span(3, 6, "Thing")], LABELS)
    assert (tags, widened) == ([1], 2)


@pytest.mark.parametrize(("second", "expected"), [((2, 4), True), ((3, 8), True), ((5, 8), False), ((0, 5), True)])
def test_overlapping_spans_are_seen(second: tuple[int, int], expected: bool) -> None:
    assert (crossing([Span(0, 5, "Color"), Span(*second, "Thing")]) is not None) is expected


def test_an_inside_tag_that_goes_on_with_nothing_begins_a_span() -> None:
    text = "a b c"
    assert [(span.start, span.end, span.type) for span in spans_of(text, words(text), [2, 4, 4], LABELS)] == [(0, 1, "Color"), (2, 5, "Thing")]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.integers(0, 4))
def test_the_best_row_of_tags_is_that_of_trying_all(seeds: list[int], longest: int) -> None:
    scores = [np.random.default_rng(seed).normal(size=(min(longest, place + 1), 5)).astype(np.float32) for place, seed in enumerate(seeds)]

    def allowed(row: tuple[int, ...]) -> bool:
        return all(tag == 0 or tag % 2 or before in (tag, tag - 1) for before, tag in zip((0, *row), row, strict=False))

    for item, row in zip(scores, best_tags(scores), strict=True):
        every = [tags for tags in itertools.product(range(5), repeat=len(item)) if allowed(tags)]
        best = max(every, key=lambda tags: sum(float(item[place, tag]) for place, tag in enumerate(tags)))
        assert tuple(row) == best
