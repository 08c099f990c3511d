"""Measures: per-item values plus the statistic over them, in the weighted form that the bootstrap needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metier.evaluation.statistics import Floats, Statistic

__all__ = ["Measure", "brier", "macro_f1", "matthews", "mean", "ratio", "roc_auc"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of one side. `values` has one figure an item (NaN: says nothing of this item); `kind` is how they add up."""

    values: Floats
    statistic: Statistic
    kind: Literal["binary", "mean", "corpus"]

    def point(self) -> float:
        """Return the plain value over all items."""
        return float(self.statistic(np.ones((1, len(self.values))))[0])


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    result: Floats = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def mean(values: Sequence[float], *, binary: bool = False) -> Measure:
    """The mean over the items that have a value."""
    array = np.asarray(values, dtype=float)
    counted = (~np.isnan(array)).astype(float)
    filled = np.nan_to_num(array)
    return Measure(array, lambda weights: _divide(weights @ filled, weights @ counted), "binary" if binary else "mean")


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Measure:
    """A sum over a sum (micro average): items weigh by their denominator; one with denominator 0 says nothing."""
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    return Measure(_divide(top, bottom), lambda weights: _divide(weights @ top, weights @ bottom), "corpus")


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> Measure:
    """The mean of the F1 of each class; the classes are the labels that are the right answer of some item.

    A prediction that is nobody's right answer (free text) counts against its item's class and makes no class of its own:
    sklearn's f1_score with `labels` set to the right answers. A resample without item and prediction of a class leaves it out.
    """
    labels = sorted(set(gold))
    right, said = np.asarray(gold), np.asarray(predicted)
    masks = [(right == label, said == label) for label in labels]

    def statistic(weights: Floats) -> Floats:
        scores = np.stack([_divide(2 * (weights @ (truth & guess)), weights @ truth.astype(float) + weights @ guess.astype(float)) for truth, guess in masks])
        counted = ~np.isnan(scores)
        return _divide(np.nan_to_num(scores).sum(axis=0), counted.sum(axis=0).astype(float))

    return Measure((right == said).astype(float), statistic, "corpus")


def matthews(gold: Sequence[str], predicted: Sequence[str]) -> Measure:
    """The Matthews correlation for any number of classes (Gorodkin, Comput Biol Chem 28, 2004); 0 where it is 0/0."""
    right, said = np.asarray(gold), np.asarray(predicted)
    labels = sorted({*gold, *predicted})
    hits = (right == said).astype(float)
    truth = np.stack([(right == label).astype(float) for label in labels], axis=1)
    guess = np.stack([(said == label).astype(float) for label in labels], axis=1)

    def statistic(weights: Floats) -> Floats:
        total, correct = weights.sum(axis=1), weights @ hits
        actual, called = weights @ truth, weights @ guess
        top = correct * total - (actual * called).sum(axis=1)
        bottom = np.sqrt((total**2 - (called**2).sum(axis=1)) * (total**2 - (actual**2).sum(axis=1)))
        return np.nan_to_num(_divide(top, bottom))

    return Measure(hits, statistic, "corpus")


def brier(probabilities: Sequence[Sequence[float]], gold: Sequence[int]) -> Measure:
    """The mean squared distance between choice probabilities and the truth, between 0 and 2 (Brier, 1950; lower is better)."""
    values = []
    for row, right in zip(probabilities, gold, strict=True):
        values.append(sum((value - (index == right)) ** 2 for index, value in enumerate(row)))
    return mean(values)


def _weighted_auc(scores: Floats, positive: Floats) -> Callable[[Floats], Floats]:
    """Return weights -> area under the ROC curve; ties count one half (Mann-Whitney form)."""
    order = np.argsort(scores, kind="stable")
    ranked, truth = scores[order], positive[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])

    def statistic(weights: Floats) -> Floats:
        drawn = weights[:, order]
        above = np.add.reduceat(drawn * truth, starts, axis=1)
        below = np.add.reduceat(drawn * (1 - truth), starts, axis=1)
        lower = np.cumsum(below, axis=1) - below
        return _divide((above * (lower + below / 2)).sum(axis=1), above.sum(axis=1) * below.sum(axis=1))

    return statistic


def roc_auc(probabilities: Sequence[Sequence[float]], gold: Sequence[int], choices: Sequence[tuple[str, ...]]) -> Measure:
    """The area under the ROC curve, one class against the rest, mean over classes.

    Items are compared only with items of the same choices (each language has its own labels); the groups' means are weighted
    by their items. A class without a right or without a wrong item is left out. With two choices this is the usual AUC.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, names in enumerate(choices):
        groups.setdefault(names, []).append(index)
    parts: list[tuple[np.ndarray, list[Callable[[Floats], Floats]]]] = []
    for names, members in groups.items():
        places = np.asarray(members)
        curves = []
        for label in range(len(names)):
            truth = np.asarray([float(gold[index] == label) for index in members])
            if 0 < truth.sum() < len(truth):
                curves.append(_weighted_auc(np.asarray([probabilities[index][label] for index in members]), truth))
        if curves:
            parts.append((places, curves))

    def statistic(weights: Floats) -> Floats:
        top, bottom = np.zeros(len(weights)), np.zeros(len(weights))
        for places, curves in parts:
            drawn = weights[:, places]
            areas = np.stack([curve(drawn) for curve in curves])
            counted = ~np.isnan(areas)
            area = _divide(np.nan_to_num(areas).sum(axis=0), counted.sum(axis=0).astype(float))
            size = drawn.sum(axis=1) * ~np.isnan(area)
            top += np.nan_to_num(area) * size
            bottom += size
        return _divide(top, bottom)

    values = np.asarray([row[right] for row, right in zip(probabilities, gold, strict=True)])
    return Measure(values, statistic, "corpus")
