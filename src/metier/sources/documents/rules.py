"""The rules by which documents are divided: patterns of `rules.yaml`, compiled once."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml

__all__ = ["numeral", "rule", "rules", "words"]


@cache
def _data() -> dict[str, Any]:
    value: dict[str, Any] = load_yaml(Path(__file__).with_name("rules.yaml")).value
    return value


@cache
def rule(name: str) -> re.Pattern[str]:
    """Return the pattern of a name."""
    return re.compile(_data()[name])


@cache
def rules(name: str) -> tuple[re.Pattern[str], ...]:
    """Return the list of patterns of a name, in its order."""
    return tuple(re.compile(pattern) for pattern in _data()[name])


@cache
def words(name: str) -> frozenset[str]:
    """Return the list of words of a name."""
    return frozenset(_data()[name])


def numeral(text: str) -> int:
    """Return the value of a whole number in Chinese or Arabic numerals; both ways of writing, 133 by places and by units, are read."""
    if text.isdecimal():
        return int(text)
    digits, units = _data()["numerals"], _data()["units"]
    if not any(character in units for character in text):
        return int("".join(str(digits[character]) for character in text))
    total = part = last = 0
    for character in text:
        if character in digits:
            last = digits[character]
        elif units[character] == 10000:
            total, part, last = (total + part + last) * 10000, 0, 0
        else:
            part, last = part + (last or 1) * units[character], 0
    return total + part + last
