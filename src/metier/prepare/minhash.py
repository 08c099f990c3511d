"""Near-duplicate candidates: character shingles hashed for many texts at once, MinHash signatures, banding, exact Jaccard.

MinHash: Broder, On the resemblance and containment of documents (1997). Banding: Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, 3.4: 128 hashes in 16 bands of 8 find a pair of similarity s with probability 1 - (1 - s^8)^16, 0.95 at s = 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "HASHES", "candidates", "implementation", "jaccard", "shingle_sets", "signatures"]

HASHES, BANDS = 128, 16
_SEED = 42
_ALL_PAIRS = 32

Hashes: TypeAlias = NDArray[np.uint64]
Offsets: TypeAlias = NDArray[np.int64]

_PRIME = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: Hashes) -> Hashes:
    """Return SplitMix64's finaliser of each value (Steele, Lea, Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shingle_sets(texts: Sequence[str], size: int) -> tuple[Hashes, Offsets]:
    """Return the 64-bit hashes of every text's shingles of `size` characters, one after the other, and where each text begins.

    Text i has the hashes from offset i to offset i + 1. A text shorter than `size` has one shingle: itself.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    padded = np.maximum(lengths, size)
    codes = np.frombuffer("".join(text.ljust(size, "\0") for text in texts).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if not len(codes):
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts) + 1, dtype=np.int64)
    count = len(codes) - size + 1
    rolled = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        rolled *= _PRIME
        rolled += codes[place : place + count]
    windows = padded - size + 1
    starts = np.concatenate(([0], np.cumsum(padded)[:-1]))
    keep = np.ones(len(codes), dtype=bool)
    for place in range(size - 1):
        keep[starts + windows + place] = False
    offsets = np.concatenate(([0], np.cumsum(windows)))
    return _mix(rolled[keep[:count]]), offsets


def implementation() -> str:
    """Return the name of what computes signatures here: `rensa` where it is installed, else `numpy`."""
    return "rensa" if find_spec("rensa") else "numpy"


def signatures(hashes: Hashes, offsets: Offsets, *, using: str | None = None) -> NDArray[np.uint32]:
    """Return the signature of every text, [texts, HASHES]. `using` is `rensa` or `numpy`; by default what is installed.

    The two give different numbers with the same meaning: equal entries estimate the Jaccard similarity.
    """
    if len(offsets) == 1:
        return np.zeros((0, HASHES), dtype=np.uint32)
    if (using or implementation()) == "numpy":
        return _numpy_signatures(hashes, offsets)
    import rensa

    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), HASHES, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _numpy_signatures(hashes: Hashes, offsets: Offsets) -> NDArray[np.uint32]:
    generator = np.random.default_rng(_SEED)
    factors = generator.integers(0, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = generator.integers(0, 2**63, HASHES, dtype=np.uint64)
    found = np.empty((len(offsets) - 1, HASHES), dtype=np.uint32)
    for place in range(HASHES):
        permuted = ((hashes * factors[place] + shifts[place]) >> np.uint64(32)).astype(np.uint32)
        found[:, place] = np.minimum.reduceat(permuted, offsets[:-1])
    return found


def candidates(matrix: NDArray[np.uint32], *, bands: int = BANDS) -> Iterator[tuple[int, int]]:
    """Yield each pair (i < j) of rows that share a band of their signatures, once.

    Of a bucket with more than 32 rows only neighbours and pairs with the first row are given: its rows are nearly all alike, and
    the pairs that hold connect them.
    """
    seen: set[tuple[int, int]] = set()
    width = matrix.shape[1] // bands
    for band in range(bands):
        key = np.zeros(len(matrix), dtype=np.uint64)
        for column in matrix[:, band * width : (band + 1) * width].T:
            key = _mix(key * _PRIME + column.astype(np.uint64) + np.uint64(1))
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        edges = np.flatnonzero(np.diff(ordered)) + 1
        for bucket in _buckets(order, edges):
            for pair in _pairs(bucket):
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _buckets(order: NDArray[Any], edges: NDArray[Any]) -> Iterator[list[int]]:
    bounds = np.concatenate(([0], edges, [len(order)]))
    for place in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[place] : bounds[place + 1]].tolist()


def _pairs(bucket: list[int]) -> Iterator[tuple[int, int]]:
    if len(bucket) <= _ALL_PAIRS:
        for place, left in enumerate(bucket):
            for right in bucket[place + 1 :]:
                yield left, right
        return
    for left, right in pairwise(bucket):
        yield left, right
        if left != bucket[0]:
            yield bucket[0], right


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return the exact Jaccard similarity of two sets, each given as sorted distinct hashes."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared) if len(left) or len(right) else 1.0
