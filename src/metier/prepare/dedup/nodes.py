"""Exact duplicates: rows of one digest are one node, and the preferred row stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.prepare.dedup.shuffle import partition_count

__all__ = ["Nodes", "by_preference", "nodes_of"]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Rows that differ exactly, numbered by digest: of each row its node, of each node its first and its best row. 12 bytes a row at most."""

    of: NDArray[np.uint32]
    first: NDArray[np.uint32]
    best: NDArray[np.uint32]


def by_preference(columns: Mapping[str, NDArray[Any]], rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return the places of rows from the most preferred on: highest score, longest, newest, smallest id."""
    taken = {name: columns[name][rows] for name in ("score", "length", "time", "id")}
    return np.lexsort((taken["id"], -taken["time"], -taken["length"], -taken["score"]))


def nodes_of(columns: Mapping[str, NDArray[Any]]) -> Nodes:
    """Return the nodes of all rows. Digests are taken in ranges, so that what is sorted at once stays small."""
    digest = columns["digest"]
    rows, of = len(digest), np.zeros(len(digest), dtype=np.uint32)
    first: list[NDArray[np.uint32]] = []
    best: list[NDArray[np.uint32]] = []
    count, base = partition_count(rows), 0
    for number in range(count):
        high = np.asarray(digest[:, 0])
        low, top = number * (1 << 64) // count, (number + 1) * (1 << 64) // count - 1
        taken = np.flatnonzero((high >= np.uint64(low)) & (high <= np.uint64(top)))
        if not len(taken):
            continue
        words = digest[taken]
        order = np.lexsort((taken, words[:, 1], words[:, 0]))
        words, taken = words[order], taken[order]
        fresh = np.ones(len(taken), dtype=bool)
        fresh[1:] = (words[1:] != words[:-1]).any(axis=1)
        local = np.cumsum(fresh) - 1
        of[taken] = base + local
        first.append(taken[fresh].astype(np.uint32))
        best.append(_best(columns, taken, local, fresh))
        base += int(local[-1]) + 1
    nothing = np.zeros(0, dtype=np.uint32)
    return Nodes(of, np.concatenate([nothing, *first]), np.concatenate([nothing, *best]))


def _best(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64], local: NDArray[np.int64], fresh: NDArray[np.bool_]) -> NDArray[np.uint32]:
    best = rows[fresh].astype(np.uint32)
    several = np.flatnonzero(np.bincount(local)[local] > 1)
    if len(several):
        order = several[by_preference(columns, rows[several])]
        groups, places = np.unique(local[order], return_index=True)
        best[groups] = rows[order[places]]
    return best
