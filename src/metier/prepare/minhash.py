"""MinHash signatures, the banding that fits a threshold, and exact Jaccard similarity.

MinHash: Broder, On the resemblance and containment of documents (1997). Banding: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4:
b bands of r hashes show a pair of similarity s with probability 1 - (1 - s^r)^b.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metier.prepare.shingles import Hashes, Offsets, mix

__all__ = ["HASHES", "Banding", "band_keys", "banding", "implementation", "jaccard", "signatures"]

HASHES = 128
_SEED = 42
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_WORKING = 1 << 20


class Banding(NamedTuple):
    """How a signature is cut: so many bands of so many hashes each."""

    bands: int
    rows: int

    def probability(self, similarity: float) -> float:
        """Return how likely a pair of this similarity shares a band."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def banding(threshold: float, *, recall: float = 0.95, hashes: int = HASHES) -> Banding:
    """Return the banding with the longest bands (fewest false candidates) that shows a pair right at the threshold with probability `recall`.

    Of 128 hashes, a threshold of 0.7 takes 25 bands of 5 (0.990), 0.8 takes 18 of 7 (0.985), 0.9 takes 10 of 12 (0.964).
    """
    fitting = [found for rows in range(1, hashes + 1) if (found := Banding(hashes // rows, rows)).probability(threshold) >= recall]
    return fitting[-1] if fitting else Banding(hashes, 1)


def implementation() -> str:
    """Return the name of what computes signatures here: `rensa` where it is installed, else `numpy`."""
    return "rensa" if find_spec("rensa") else "numpy"


def signatures(hashes: Hashes, offsets: Offsets, *, using: str | None = None) -> NDArray[np.uint32]:
    """Return the signature of every text, [texts, HASHES]. `using` is `rensa` or `numpy`; by default what is installed.

    The two give different numbers with the same meaning: equal entries estimate the Jaccard similarity. No text may be without shingles.
    """
    if len(offsets) == 1:
        return np.zeros((0, HASHES), dtype=np.uint32)
    if (using or implementation()) == "numpy":
        return _numpy_signatures(hashes, offsets)
    import rensa

    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), HASHES, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _numpy_signatures(hashes: Hashes, offsets: Offsets) -> NDArray[np.uint32]:
    """Permute in blocks of about a million shingles, so that the workspace stays small; a longer text is a block of its own."""
    generator = np.random.default_rng(_SEED)
    factors = generator.integers(0, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = generator.integers(0, 2**63, HASHES, dtype=np.uint64)
    found = np.empty((len(offsets) - 1, HASHES), dtype=np.uint32)
    first = 0
    while first < len(found):
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _WORKING, side="right")) - 1)
        block, starts = hashes[offsets[first] : offsets[last]], offsets[first:last] - offsets[first]
        for place in range(HASHES):
            permuted = ((block * factors[place] + shifts[place]) >> np.uint64(32)).astype(np.uint32)
            found[first:last, place] = np.minimum.reduceat(permuted, starts)
        first = last
    return found


def band_keys(matrix: NDArray[np.uint32], cut: Banding) -> Hashes:
    """Return for each signature one 64-bit key a band, [texts, bands]: equal keys mean equal bands, and keys of two bands differ."""
    keys = np.broadcast_to(mix(np.arange(1, cut.bands + 1, dtype=np.uint64)), (len(matrix), cut.bands)).copy()
    parts = matrix[:, : cut.bands * cut.rows].reshape(len(matrix), cut.bands, cut.rows)
    for place in range(cut.rows):
        keys = mix(keys * _PRIME + parts[:, :, place])
    return keys


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return the exact Jaccard similarity of two sets, each given as sorted distinct hashes."""
    if not len(left) and not len(right):
        return 1.0
    both = np.concatenate((left, right))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)
