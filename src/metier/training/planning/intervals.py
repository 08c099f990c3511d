"""Intervals of what is measured on a small sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

__all__ = ["Interval", "mean_interval", "share_interval"]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its interval."""

    value: float
    low: float
    high: float

    def as_facts(self) -> dict[str, float]:
        """Return it as JSON values."""
        return asdict(self)


def share_interval(hits: int, total: int, confidence: float = 0.95) -> Interval:
    """Return a share with Wilson's interval (Wilson, JASA 22, 1927), which holds for small samples and shares near 0 and 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = hits / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    # Rounding must not lift the bound of no hit above 0, nor lower that of all hits below 1.
    return Interval(share, max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < total else 1.0)


def mean_interval(values: Sequence[float], weights: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return sum(values) / sum(weights) with its percentile bootstrap over the items (Efron and Tibshirani 1993, chapter 13)."""
    top, bottom = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(top), size=(_RESAMPLES, len(top)))
    ratios = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high))
