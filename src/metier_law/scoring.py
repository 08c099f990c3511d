"""Scores of the law tasks that the general metrics do not give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from metier.config import load_yaml
from metier.packs.matching import fold_width

__all__ = ["articles_match"]


@lru_cache(maxsize=1)
def _forms() -> tuple[regex.Pattern[str], ...]:
    return tuple(regex.compile(form) for form in load_yaml(Path(__file__).parent / "data" / "articles.yaml").value["forms"])


def _articles(text: str) -> set[str]:
    folded = fold_width(text)
    return {"".join(match.group().split()).casefold() for form in _forms() for match in form.finditer(folded)}


def articles_match(answer: str, fields: Mapping[str, Any]) -> float:
    """Return F1 of the articles that the answer cites against those of the target, by number as written; NaN if the target cites none."""
    given, wanted = _articles(answer), _articles(str(fields["target"]))
    if not wanted:
        return math.nan
    return 2 * len(given & wanted) / (len(given) + len(wanted))
