"""Which texts of a row begin alike: such a beginning is read once for all of them, and nothing that is learnt changes by it.

A token sees what stands before it and nothing else, so its states are the same in every text that begins the same way. Long instructions before short
texts cost their tokens once a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Family", "families"]

_LEAST = 16
"""Tokens from which on a beginning is worth a piece of its own: below, cutting the attention up costs more than the tokens."""


@dataclass(frozen=True, slots=True)
class Family:
    """Texts, by their places, whose first `common` tokens are the same; each has at least one token more. A text alone shares nothing."""

    members: tuple[int, ...]
    common: int


def families(texts: Sequence[Sequence[int]]) -> list[Family]:
    """Return the families of texts, each text in one of them, in the order of their first members.

    In sorted order what begins alike stands together, so one walk finds them: a text joins the family before it where that spares more tokens.
    """
    found: list[Family] = []
    members: list[int] = []
    common = 0
    for place in sorted(range(len(texts)), key=lambda number: tuple(texts[number])):
        text = texts[place]
        if members:
            alike = min(_alike(texts[members[0]], text), len(text) - 1, common)
            if alike >= _LEAST and alike * len(members) > common * (len(members) - 1):
                members.append(place)
                common = alike
                continue
            found.append(_family(members, common))
        members, common = [place], len(text) - 1
    if members:
        found.append(_family(members, common))
    return sorted(found, key=lambda family: family.members[0])


def _family(members: Sequence[int], common: int) -> Family:
    return Family(tuple(sorted(members)), common if len(members) > 1 else 0)


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts have in common from the start."""
    for count, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return count
    return min(len(first), len(second))
