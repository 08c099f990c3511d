"""What an engine is: it maps a function over items, keeps their order and takes no more of them than it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["LOCAL", "Engine", "Local"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Executes chunks of work."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in the items' order; items are taken lazily.

        A function for an engine of several processes has to be picklable: a top-level function or a partial of one.
        """


class Local:
    """The engine that works in the calling process."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item."""
        return map(function, items)


LOCAL: Engine = Local()
