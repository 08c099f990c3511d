"""A score with what each item does to it, whatever the statistic: from that follow its standard error and that of a difference.

The jackknife's pseudo-values (Tukey 1958; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11) are n S - (n - 1) S without the
item. Of a mean they are the items' own values. Their standard deviation over sqrt(n) is the standard error of the score; that of their differences
from the pseudo-values of another score over the same items is the standard error of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Score", "jackknifed", "mean_of"]

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Score:
    """A score and the pseudo-value of each item."""

    value: float
    items: tuple[float, ...]


def jackknifed(statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int) -> Score:
    """Return a statistic over `count` items; it takes weights [resamples, items] and gives one value a resample.

    An item without which the statistic is not defined (NaN) counts as one that changes nothing.
    """
    value = float(statistic(np.ones((1, count)))[0])
    without = np.empty(count)
    for start in range(0, count, _AT_ONCE):
        places = np.arange(start, min(count, start + _AT_ONCE))
        weights = np.ones((len(places), count))
        weights[np.arange(len(places)), places] = 0
        without[places] = statistic(weights)
    without = np.where(np.isnan(without), value, without)
    return Score(value, tuple((count * value - (count - 1) * without).tolist()))


def mean_of(scores: Sequence[Score]) -> Score:
    """Return the mean of scores over different items, with values of all items whose standard error is that of the mean.

    Different items are independent, so the squared errors of the scores add up: each score's pseudo-values are stretched about it by what its own number
    of items makes less of than the number of all. A score over a single item says nothing of its spread.
    """
    value, every = sum(score.value for score in scores) / len(scores), sum(len(score.items) for score in scores)
    items: list[float] = []
    for score in scores:
        own = len(score.items)
        stretch = math.sqrt(every * (every - 1) / (own * (own - 1))) / len(scores) if own > 1 else 0.0
        items += [value + stretch * (item - score.value) for item in score.items]
    return Score(value, tuple(items))
