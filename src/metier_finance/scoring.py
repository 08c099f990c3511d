"""Scores of the finance tasks that the general metrics do not give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import regex

from metier.packs.matching import fold_width

__all__ = ["figures_match"]

_FIGURE = regex.compile(r"(?<![0-9A-Za-z.])-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|(?<![0-9A-Za-z.])-?[0-9]+(?:\.[0-9]+)?")


def _figures(text: str) -> set[float]:
    return {float(found.replace(",", "")) for found in _FIGURE.findall(fold_width(text))}


def figures_match(answer: str, fields: Mapping[str, Any]) -> float:
    """Return 1.0 if the answer holds exactly the figures of the target (1,200.50 and 1200.5 are one), NaN if the target has none."""
    wanted = _figures(str(fields["target"]))
    return float(_figures(answer) == wanted) if wanted else math.nan
