"""Disjoint sets of things that have to stay together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Sets"]

Member = TypeVar("Member", bound=Hashable)


class Sets(Generic[Member]):
    """Union-find with path halving (Tarjan and van Leeuwen, 1984). A thing that was never joined is alone."""

    def __init__(self) -> None:
        self._above: dict[Member, Member] = {}

    def root(self, member: Member) -> Member:
        """Return the representative of a thing's set."""
        above = self._above
        above.setdefault(member, member)
        while above[member] != member:
            above[member] = above[above[member]]
            member = above[member]
        return member

    def join(self, left: Member, right: Member) -> None:
        """Put the sets of two things together."""
        self._above[self.root(right)] = self.root(left)
