"""Means over validation examples and their standard errors. The examples are the sample, for the tokens of one are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from metier.training.checking import Checked

__all__ = ["Losses", "mean_loss", "paired_error", "standard_error"]

Losses: TypeAlias = Sequence[tuple[float, int]]
"""Summed loss and learnt tokens of each validation example; of a score the pseudo-value of each item, once (see `metier.jackknife`)."""


def _checked(losses: Losses) -> Checked:
    sums, counts = tuple(total for total, _ in losses), tuple(count for _, count in losses)
    return Checked(sums, counts, counts)


def mean_loss(losses: Losses) -> float:
    """Return the mean loss in nats a learnt token (of a score: the mean of its pseudo-values)."""
    return _checked(losses).mean()


def standard_error(losses: Losses) -> float | None:
    """Return the standard error of that mean (see `Checked.error`); None below two examples."""
    error = _checked(losses).error()
    return error if math.isfinite(error) else None


def paired_error(losses: Losses, others: Losses) -> float | None:
    """Return the standard error of the difference of two means over the same examples: what makes an example hard for both cancels out."""
    return standard_error([(first - second, count) for (first, count), (second, _) in zip(losses, others, strict=True)])
