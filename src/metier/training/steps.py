"""The steps of a training as what they are made of: places of examples, rows of them, steps of rows. A number takes four bytes, not an object."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TypeAlias, overload

__all__ = ["Step", "Steps"]

Step: TypeAlias = tuple[tuple[int, ...], ...]
"""The packed rows of one optimiser step, each the places of its examples."""


class Steps(Sequence[Step]):
    """Steps in order; each becomes tuples when it is asked for."""

    def __init__(self, steps: Iterable[Iterable[Sequence[int]]] = ()) -> None:
        self._places, self._rows, self._steps = array("i"), array("q", [0]), array("q", [0])
        for step in steps:
            for row in step:
                self._places.extend(row)
                self._rows.append(len(self._places))
            self._steps.append(len(self._rows) - 1)

    def __len__(self) -> int:
        return len(self._steps) - 1

    @overload
    def __getitem__(self, place: int) -> Step: ...
    @overload
    def __getitem__(self, place: slice) -> list[Step]: ...
    def __getitem__(self, place: int | slice) -> Step | list[Step]:
        if isinstance(place, slice):
            return [self._step(number) for number in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._step(place % len(self))

    def _step(self, number: int) -> Step:
        ends = self._rows[self._steps[number] : self._steps[number + 1] + 1]
        return tuple(tuple(self._places[start:end]) for start, end in pairwise(ends))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Steps):
            return NotImplemented
        return (self._places, self._rows, self._steps) == (other._places, other._rows, other._steps)

    __hash__ = None  # type: ignore[assignment]

    @property
    def rows(self) -> Iterator[tuple[int, ...]]:
        """The rows of all steps, in order."""
        return chain.from_iterable(self)

    @property
    def places(self) -> Sequence[int]:
        """The places of the examples of all rows, in order."""
        return self._places
