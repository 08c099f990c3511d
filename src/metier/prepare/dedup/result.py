"""What the search for duplicates returns: arrays, an entry a row, read as if they were dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "NEAR_COPY", "Duplicates", "Reasons"]

EXACT, NEAR_COPY = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Reasons(Mapping[int, str]):
    """Why each dropped row leaves, by row number: 9 bytes a row, and ids mapped from the disk."""

    kind: NDArray[np.uint8]
    similarity: NDArray[np.float32]
    rival: NDArray[np.uint32]
    ids: NDArray[np.bytes_]

    def __getitem__(self, number: int) -> str:
        """Return the reason. Raises KeyError for a row that stays."""
        if number not in self:
            raise KeyError(number)
        rival = self.ids[self.rival[number]].decode()
        return f"exact_duplicate:{rival}" if self.kind[number] == EXACT else f"near_duplicate:{self.similarity[number]:.3f} to {rival}"

    def __contains__(self, number: object) -> bool:
        """Return whether a row leaves."""
        return isinstance(number, int | np.integer) and 0 <= number < len(self.kind) and bool(self.kind[number])

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of rows that leave."""
        yield from np.flatnonzero(self.kind).tolist()

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kind))


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Which rows leave and why, which stay together, how often each case came up, and the queue of conflicts.

    `clusters[number]` is the row with the smallest id of all that stay together with row `number`.
    """

    dropped: Reasons
    clusters: NDArray[np.uint32]
    counts: dict[str, int]
    conflicts: Path | None = None
    ids: NDArray[np.bytes_] = field(default_factory=lambda: np.zeros(0, dtype="S1"))

    def cluster_name(self, number: int) -> str:
        """Return the name of a row's cluster: the smallest id in it, whatever the order of rows."""
        name: Any = self.ids[self.clusters[number]]
        return str(name.decode())
