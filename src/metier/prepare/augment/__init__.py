"""Variants of training records: paraphrase, noise, longer conversations, corrections, refusals, and what a model writes."""

from metier.prepare.augment.derive import KIND, derive
from metier.prepare.augment.effect import describe, effect, moving_type_token_ratio
from metier.prepare.augment.quality import refused, similarity
from metier.prepare.augment.rewrite import rewrite, to_rewrite
from metier.prepare.augment.settings import AugmentSettings, FilterSettings, Shares
from metier.prepare.augment.step import Means, augment, rules

__all__ = [
    "KIND",
    "AugmentSettings",
    "FilterSettings",
    "Means",
    "Shares",
    "augment",
    "derive",
    "describe",
    "effect",
    "moving_type_token_ratio",
    "refused",
    "rewrite",
    "rules",
    "similarity",
    "to_rewrite",
]
