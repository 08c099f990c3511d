"""Whether a variant of a question may stay: near enough to its parent, with its numbers, in its language, without identifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from metier.prepare.augment.settings import FilterSettings
from metier.prepare.compare import bare, critical
from metier.prepare.language import detect

__all__ = ["refused", "similarity"]


def similarity(one: str, other: str) -> float:
    """Return Dice's coefficient (Dice, Ecology 26, 1945) of the pairs of neighbouring folded letters of two texts, from 0 to 1."""
    left, right = (Counter(pairwise(text)) for text in (bare(one), bare(other)))
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else float(bare(one) == bare(other))


def refused(parent: str, variant: str, settings: FilterSettings, *, language: str | None, identifies: Callable[[str], bool] | None = None) -> str | None:
    """Return why a variant of a question is not good enough, or None.

    Reasons: empty, same_as_parent, other_language, numbers_changed, too_short, too_long, too_far, too_near, identifier.
    `identifies` says whether a text holds a personal identifier.
    """
    if not bare(variant):
        return "empty"
    if bare(variant) == bare(parent):
        return "same_as_parent"
    if language is not None and detect(variant) != language:
        return "other_language"
    if Counter(critical(variant)) != Counter(critical(parent)):
        return "numbers_changed"
    ratio = len(variant) / max(1, len(parent))
    if ratio < settings.shortest:
        return f"too_short:{ratio:.2f}<{settings.shortest:g}"
    if ratio > settings.longest:
        return f"too_long:{ratio:.2f}>{settings.longest:g}"
    near = similarity(parent, variant)
    if near < settings.lowest:
        return f"too_far:{near:.2f}<{settings.lowest:g}"
    if near > settings.highest:
        return f"too_near:{near:.2f}>{settings.highest:g}"
    return "identifier" if identifies is not None and identifies(variant) else None
