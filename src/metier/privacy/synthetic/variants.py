"""Ways in which a value is disfigured between the person who wrote it and the file in which it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

__all__ = ["VARIANTS", "applies", "disfigure"]

_WIDE = {ord(char): chr(ord(char) + 0xFEE0) for char in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@.-_/"}
_CONFUSED: Mapping[str, str] = {"0": "Oo", "1": "lI", "5": "S", "8": "B"}
_INVISIBLE = "\u200b\u200c\u2060\ufeff\u00ad"
_SHORTEST = 8
_MOST_CONFUSED = 2


def _wide(rng: Random, value: str) -> str:
    return value.translate(_WIDE)


def _wrapped(rng: Random, value: str) -> str:
    places = [place for place in range(2, len(value) - 1) if value[place - 1].isalnum() and value[place].isalnum()]
    place = rng.choice(places)
    return value[:place] + rng.choice(["\n", "\n", "-\n", "\r\n", "\n  "] if value[place - 1].isascii() else ["\n"]) + value[place:]


def _confused(rng: Random, value: str) -> str:
    places = [place for place, char in enumerate(value) if char in _CONFUSED]
    out = list(value)
    for place in rng.sample(places, min(len(places), rng.randint(1, _MOST_CONFUSED))):
        out[place] = rng.choice(_CONFUSED[value[place]])
    return "".join(out)


def _separated(rng: Random, value: str) -> str:
    mark = rng.choice([" ", "-"])
    size = 6 if len(value) == 18 else 4
    groups = [value[place : place + size] for place in range(0, len(value), size)]
    if len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return mark.join(groups)


def _invisible(rng: Random, value: str) -> str:
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(1, len(value))
        value = value[:place] + rng.choice(_INVISIBLE) + value[place:]
    return value


_CHANGES: Mapping[str, Callable[[Random, str], str]] = {
    "wide": _wide,
    "wrapped": _wrapped,
    "confused": _confused,
    "separated": _separated,
    "invisible": _invisible,
}

VARIANTS = ("plain", "tight", "spaced", "wide", "wrapped", "confused", "separated", "invisible", "edge", "cell", "json")
"""Names of the variants: `tight` and `spaced` change what stands around a value, `edge` ends the text with it, `cell` and `json` are a table and an object."""


def applies(variant: str, value: str, numbered: bool) -> bool:
    """Return whether a value can be disfigured so; `numbered` says that a check digit or a label tells the number apart from a word."""
    if variant == "wrapped":
        return len(value) >= _SHORTEST and any(value[place - 1].isalnum() and value[place].isalnum() for place in range(2, len(value) - 1))
    if variant == "confused":
        digits = sum(char.isdecimal() for char in value)
        return numbered and value.isascii() and digits >= _SHORTEST and digits * 3 >= len(value) * 2 and any(char in _CONFUSED for char in value)
    if variant == "separated":
        return numbered and value.isascii() and value.isalnum() and len(value) > _SHORTEST and sum(char.isdecimal() for char in value) >= _SHORTEST
    return variant != "wide" or any(ord(char) in _WIDE for char in value)


def disfigure(rng: Random, variant: str, value: str) -> str:
    """Return the value as the variant writes it; variants that change only what stands around it return it as it is."""
    change = _CHANGES.get(variant)
    return value if change is None else change(rng, value)
