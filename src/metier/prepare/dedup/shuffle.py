"""The keyed shuffle: entries with equal band keys meet in one partition, whose buckets give candidate pairs.

A partition is a range of keys. Keys are uniform, so partitions are even, and each is read from every shard's sorted run as one slice. What a
partition gives depends on its entries alone, not on how rows were sharded: nodes are numbered by the digest of their content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALL_PAIRS", "bucket_pairs", "candidates", "merged", "packed", "partition_count", "unpacked"]

Pairs: TypeAlias = NDArray[np.uint64]
Nodes: TypeAlias = NDArray[np.int64]

ALL_PAIRS = 32
"""Buckets up to this size give all their pairs; of a bigger one, each node gives those with its neighbour and with the first."""

_ENTRIES_A_PARTITION = 1 << 21
_PAIRS_A_RANGE = 1 << 21


def packed(left: NDArray[Any], right: NDArray[Any]) -> Pairs:
    """Return pairs of node numbers below 2^32 as one word each, the smaller node in the upper half."""
    low, high = np.minimum(left, right).astype(np.uint64), np.maximum(left, right).astype(np.uint64)
    pairs: Pairs = (low << np.uint64(32)) | high
    return pairs


def unpacked(pairs: Pairs) -> tuple[Nodes, Nodes]:
    """Return the smaller and the greater node of each pair."""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def partition_count(entries: int, *, each: int = _ENTRIES_A_PARTITION) -> int:
    """Return how many partitions keep each at about `each` entries."""
    return max(1, -(-entries // each))


def _slice(run: NDArray[Any], low: int, high: int) -> NDArray[Any]:
    keys = run["key"]
    first = np.searchsorted(keys, np.uint64(low))
    last = len(keys) if high >= 1 << 64 else np.searchsorted(keys, np.uint64(high))
    return run[first:last]


def candidates(runs: Sequence[tuple[Path, int]], node_of: Path, count: int, number: int) -> tuple[Pairs, Nodes]:
    """Return the candidate pairs of partition `number` of `count`, sorted, and the nodes that stood in a bucket too big for all its pairs.

    `runs` are the shards' files with the number of their first row; `node_of` is the file with the node of every row.
    """
    low, high = number * (1 << 64) // count, (number + 1) * (1 << 64) // count
    keys, rows = [], []
    for path, base in runs:
        found = _slice(np.load(path, mmap_mode="r"), low, high)
        keys.append(np.array(found["key"]))
        rows.append(found["row"].astype(np.int64) + base)
    key, node = np.concatenate(keys), np.load(node_of, mmap_mode="r")[np.concatenate(rows)].astype(np.int64)
    order = np.lexsort((node, key))
    key, node = key[order], node[order]
    fresh = np.ones(len(key), dtype=bool)
    fresh[1:] = (key[1:] != key[:-1]) | (node[1:] != node[:-1])
    key, node = key[fresh], node[fresh]
    bounds = np.concatenate(([0], np.flatnonzero(key[1:] != key[:-1]) + 1, [len(key)]))
    return bucket_pairs(node, bounds)


def bucket_pairs(nodes: Nodes, bounds: NDArray[Any]) -> tuple[Pairs, Nodes]:
    """Return the pairs within each bucket `nodes[bounds[i]:bounds[i + 1]]`, sorted and once each, and the nodes of the buckets above `ALL_PAIRS`."""
    sizes, starts = np.diff(bounds), bounds[:-1]
    found: list[Pairs] = []
    for size in np.unique(sizes[(sizes > 1) & (sizes <= ALL_PAIRS)]).tolist():
        table = nodes[starts[sizes == size][:, None] + np.arange(size)]
        left, right = np.triu_indices(size, 1)
        found.append(np.unique(packed(table[:, left], table[:, right])))
    big: list[Nodes] = []
    for place in np.flatnonzero(sizes > ALL_PAIRS).tolist():
        bucket = nodes[bounds[place] : bounds[place + 1]]
        found += [packed(bucket[:-1], bucket[1:]), packed(np.full(len(bucket) - 1, bucket[0]), bucket[1:])]
        big.append(bucket)
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.uint64)
    return pairs, np.unique(np.concatenate(big)) if big else np.zeros(0, dtype=np.int64)


def merged(paths: Sequence[Path], nodes: int, *, each: int = _PAIRS_A_RANGE) -> Iterator[Pairs]:
    """Yield the pairs of several sorted files, once each and in order, in ranges of about `each` pairs before repeats are removed."""
    files = [np.load(path, mmap_mode="r") for path in paths]
    total = sum(map(len, files))
    count = max(1, -(-total // each))
    for number in range(count):
        low, high = np.uint64((number * nodes // count) << 32), np.uint64(((number + 1) * nodes // count) << 32)
        pairs = [file[np.searchsorted(file, low) : np.searchsorted(file, high)] for file in files]
        yield np.unique(np.concatenate(pairs)) if pairs else np.zeros(0, dtype=np.uint64)
