"""Intervals and tests: stratified bootstrap by weights, paired differences, exact McNemar, Holm, detectable differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "Statistic", "bootstrap_p", "draw_weights", "holm", "interval", "mcnemar", "minimum_detectable", "unanimous"]

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Floats], Floats]
"""Takes weights (resamples x items) and returns one value a resample; a row of ones is the plain value."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its interval, in the metric's own unit. NaN where it is not defined."""

    value: float
    low: float
    high: float

    def as_facts(self) -> dict[str, float | None]:
        """Return the interval as JSON values; what is not defined is None."""
        return {name: None if math.isnan(number) else number for name, number in (("value", self.value), ("low", self.low), ("high", self.high))}


def draw_weights(strata: Sequence[str], resamples: int, seed: int) -> Floats:
    """Return how often each item is drawn in each resample, (resamples x items): a bootstrap within each stratum.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13; strata keep their sizes.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(strata)))
    names = np.asarray(strata)
    for name in sorted(set(strata)):
        places = np.flatnonzero(names == name)
        weights[:, places] = generator.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples)
    return weights


def interval(values: Floats, point: float, confidence: float) -> Interval:
    """Return the percentile interval of resampled values around a point value; resamples without a value are left out."""
    defined = values[~np.isnan(values)]
    if math.isnan(point) or not defined.size:
        return Interval(point, math.nan, math.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(point, float(low), float(high))


def unanimous(point: float, n: int, confidence: float, *, lowest: float, step: float = 1.0) -> Interval:
    """Return the interval of a value on which all n items agree, where a bootstrap would have no width.

    The share of items unlike these is at most 1 - (alpha/2)^(1/n) (Clopper and Pearson, Biometrika 26, 1934); one such item
    moves the value by at most `step`. The bounds stay within `lowest` and 1.
    """
    room = step * (1 - ((1 - confidence) / 2) ** (1 / n))
    return Interval(point, max(lowest, point - room), min(1.0, point + room))


def mcnemar(base: Sequence[bool], tuned: Sequence[bool]) -> float:
    """Return the two-sided p of the exact McNemar test over items that were answered twice.

    The items that only one side has right follow Binomial(n, 1/2) if the sides are equally good (McNemar, Psychometrika
    12, 1947; exact form as in scipy.stats.binomtest). No such item: 1.
    """
    gained = sum(after and not before for before, after in zip(base, tuned, strict=True))
    lost = sum(before and not after for before, after in zip(base, tuned, strict=True))
    total = gained + lost
    tail = sum(math.comb(total, index) for index in range(min(gained, lost) + 1))
    share: float = 2 * tail / 2**total
    return min(1.0, share)


def bootstrap_p(differences: Floats) -> float:
    """Return the two-sided p of a paired bootstrap: twice the smaller share of resamples on one side of zero.

    One is added to numerator and denominator, so p is never 0 (Davison and Hinkley, 1997, section 4.2).
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return 1.0
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (defined.size + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values in the given order (Holm, Scand J Statist 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    reached = 0.0
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = reached
    return adjusted


def minimum_detectable(standard_error: float, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided test finds with this power, in the metric's unit.

    (z(1 - alpha/2) + z(power)) * SE. For a 0/1 metric SE = sqrt(share of discordant pairs / n): 20 % discordant pairs need
    about 1,740 items for 3 points (Connor, Biometrics 43, 1987).
    """
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(power)) * standard_error
