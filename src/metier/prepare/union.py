"""What has to stay together, from pairs of things that do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["components"]


def components(size: int, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each of `size` things the smallest one that pairs connect it with (label hooking and pointer jumping, Shiloach and Vishkin, 1982)."""
    label = np.arange(size, dtype=np.int64)
    while True:
        one, other = label[left], label[right]
        apart = one != other
        if not apart.any():
            return label
        low = np.minimum(one, other)[apart]
        np.minimum.at(label, one[apart], low)
        np.minimum.at(label, other[apart], low)
        while not np.array_equal(jumped := label[label], label):
            label = jumped
