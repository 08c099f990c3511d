"""Measures of numbers and of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metier.evaluation.measures import Measure, mean
from metier.evaluation.statistics import Floats

__all__ = ["absolute_error", "discounted_gain", "rank_correlation", "reciprocal_rank", "root_square_error"]


def absolute_error(given: Sequence[float], wanted: Sequence[float]) -> Measure:
    """The mean distance between what was said and what is true."""
    return mean(np.abs(np.asarray(given) - np.asarray(wanted)).tolist())


def root_square_error(given: Sequence[float], wanted: Sequence[float]) -> Measure:
    """The root of the mean squared distance."""
    squares = (np.asarray(given, dtype=float) - np.asarray(wanted, dtype=float)) ** 2
    return Measure(np.sqrt(squares), lambda weights: np.sqrt((weights @ squares) / weights.sum(axis=1)), "corpus")


def _ranks(values: Sequence[float]) -> Floats:
    """Return ranks from 1; equal values share the mean of theirs."""
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def rank_correlation(given: Sequence[float], wanted: Sequence[float]) -> Measure:
    """Spearman's rank correlation (1904). Resamples keep the ranks that the items have among all; not defined where one side is constant."""
    first, second = _ranks(given), _ranks(wanted)

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1)
        means = [(weights @ item) / total for item in (first, second)]
        cross = (weights @ (first * second)) / total - means[0] * means[1]
        spreads = [np.maximum((weights @ item**2) / total - centre**2, 0) for item, centre in zip((first, second), means, strict=True)]
        bottom = np.sqrt(spreads[0] * spreads[1])
        result: Floats = np.full(cross.shape, np.nan)
        # Below this the variance is what rounding leaves of a constant.
        np.divide(cross, bottom, out=result, where=bottom > 1e-9)
        return result

    return Measure(np.full(len(first), np.nan), statistic, "corpus")


def _by_question(scores: Sequence[float], questions: Sequence[str]) -> list[list[int]]:
    """Return the items of each question with more than one candidate, best score first; equal scores count against the model."""
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(question, []).append(index)
    return [sorted(members, key=lambda index: -scores[index]) for members in groups.values() if len(members) > 1]


def _worst_first(members: Sequence[int], scores: Sequence[float], wanted: Sequence[float]) -> list[int]:
    return sorted(members, key=lambda index: (-scores[index], wanted[index]))


def reciprocal_rank(scores: Sequence[float], wanted: Sequence[float], questions: Sequence[str]) -> Measure:
    """The mean over questions of 1 / rank of the first candidate of at least 0.5 (MRR). A question's figure stands at its first item."""
    values = [np.nan] * len(scores)
    for members in _by_question(scores, questions):
        if any(wanted[index] >= 0.5 for index in members):
            order = _worst_first(members, scores, wanted)
            values[min(members)] = 1 / (1 + next(place for place, index in enumerate(order) if wanted[index] >= 0.5))
    return mean(values)


def discounted_gain(scores: Sequence[float], wanted: Sequence[float], questions: Sequence[str]) -> Measure:
    """The mean over questions of nDCG with linear gain (Jarvelin and Kekalainen, 2002), over all candidates."""
    values = [np.nan] * len(scores)
    for members in _by_question(scores, questions):
        discounts = 1 / np.log2(np.arange(2, len(members) + 2))
        best = float(np.sort([wanted[index] for index in members])[::-1] @ discounts)
        if best > 0:
            values[min(members)] = float(np.asarray([wanted[index] for index in _worst_first(members, scores, wanted)]) @ discounts) / best
    return mean(values)
