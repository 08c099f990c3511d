"""What the search for duplicates returns: arrays, an entry a row, read as if they were dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metier.prepare.dedup.shuffle import unpacked

__all__ = ["EXACT", "NEAR_COPY", "Duplicates", "Edges", "Reasons"]

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
        return isinstance(number, int | np.integer) and 0 <= int(number) < len(self.kind) and bool(self.kind[int(number)])

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of rows that leave."""
        yield from np.flatnonzero(self.kind).tolist()

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kind))


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Pairs of nodes whose similarity reaches the threshold, sorted: 13 bytes each."""

    pairs: NDArray[np.uint64]
    similarity: NDArray[np.float32]
    verdict: NDArray[np.uint8]

    def ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the smaller and the greater node of each pair."""
        return unpacked(self.pairs)

    def of(self, *verdicts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return both ends of the pairs with one of these verdicts."""
        return unpacked(self.pairs[np.isin(self.verdict, verdicts)])


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Which rows leave and why, which stay together, how often each case came up, and the queue of conflicts.

    `clusters[number]` is the row with the smallest id of all that stay together with row `number`.
    """

    dropped: Reasons
    clusters: NDArray[np.uint32]
    counts: dict[str, int]
    nodes: NDArray[np.uint32]
    edges: Edges
    conflicts: Path | None = None

    @property
    def ids(self) -> NDArray[np.bytes_]:
        """Return the id of every row."""
        return self.dropped.ids

    def similar(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Return both ends of each pair whose similarity reaches the threshold, as numbers of `nodes` (rows with equal content are one), and the verdicts."""
        left, right = self.edges.ends()
        return left, right, self.edges.verdict

    def cluster_name(self, number: int) -> str:
        """Return the name of a row's cluster: the smallest id in it, whatever the order of rows."""
        name: bytes = self.ids[self.clusters[number]]
        return name.decode()
