"""The best sequence of tags for many texts at once, under the scores of a linear-chain conditional random field."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["best_tags"]

Floats = npt.NDArray[np.floating[Any]]


def best_tags(emissions: Floats, transitions: Floats, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the tag of every position, rows x positions; what stands beyond a row's length means nothing.

    `emissions` are rows x positions x tags, `transitions` from x to, and the rows stand in descending order of `lengths` (all above 0).
    The forward pass keeps only the best scores, which the processor does many at a time; which tag they came from is asked again on the
    way back, for one tag a row instead of all. Ties go to the lower tag, as in a search row by row.
    """
    rows, steps, tags = emissions.shape
    scores = np.empty((steps, rows, tags), dtype=emissions.dtype)
    scores[0] = emissions[:, 0]
    alive = [int(np.searchsorted(-lengths, -step, side="left")) for step in range(steps)]
    for step in range(1, steps):
        count = alive[step]
        if count == 0:
            break
        reached = scores[step - 1, :count, :, None] + transitions
        np.add(reached.max(axis=1), emissions[:count, step], out=scores[step, :count])
    backward = np.ascontiguousarray(transitions.T)
    best = np.zeros((rows, steps), dtype=np.int64)
    last = lengths - 1
    best[np.arange(rows), last] = scores[last, np.arange(rows)].argmax(axis=1)
    for step in range(steps - 1, 0, -1):
        count = alive[step]
        if count:
            best[:count, step - 1] = (scores[step - 1, :count] + backward[best[:count, step]]).argmax(axis=1)
    return best
