"""How people really type: colloquial words, typing errors, lost and full-width signs. For questions only; no answer goes through here."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from metier.prepare.augment.phrases import homophones, keys
from metier.prepare.compare import critical

__all__ = ["format_noise", "swapped", "typo"]

_HAN = re.compile("[\u4e00-\u9fff]")
_WORD = re.compile(r"(?<![A-Za-z0-9])[a-z]{4,}(?![A-Za-z0-9])")
_RATIO = re.compile(r"(?<![0-9/])([0-9]{2,3})/([0-9]{2,3})(?![0-9/])")
_SIGNS = re.compile("[,.;:!?\uff0c\u3002\uff1b\uff1a\uff01\uff1f\u3001](?![0-9])")
_WIDE_AT = 0xFEE0
_AROUND = 40
"""Characters around an error in which numbers and turning words are compared; a number is shorter."""


def swapped(text: str, groups: Sequence[Sequence[str]], chance: random.Random) -> str:
    """Return `text` with one phrase of a group for another of the same group, or as it is where none fits.

    In Latin text a phrase is found as whole words only. Where numbers or turning words would change, nothing is swapped.
    """
    choices = []
    for group in groups:
        for one in group:
            pattern = rf"(?<![A-Za-z']){re.escape(one)}(?![A-Za-z'])" if one.isascii() else re.escape(one)
            if (found := re.search(pattern, text)) is not None and not any(one in other and other in text for other in group if other != one):
                choices += [(found.start(), found.end(), other) for other in group if other != one]
    if not choices:
        return text
    start, end, other = choices[chance.randrange(len(choices))]
    changed = text[:start] + other + text[end:]
    return changed if critical(changed) == critical(text) else text


def typo(text: str, language: str | None, chance: random.Random, *, rate: float = 0.04) -> str:
    """Return `text` with one typing error for each 1/`rate` letters, one at least: a homophone, or a neighbouring, doubled or lost key.

    Numbers and turning words are left alone.
    """
    places = (
        [match.start() for match in _HAN.finditer(text) if match[0] in homophones()] if language == "zh" else [match.start() for match in _WORD.finditer(text)]
    )
    wanted = max(1, round(rate * len(text) * (1.0 if language == "zh" else 0.2)))
    changed = text
    # from the end, so that a lost or doubled letter does not move the places that are still to come
    for place in sorted(chance.sample(places, min(wanted, len(places))), reverse=True):
        attempt = _homophone(changed, place, chance) if language == "zh" else _mistyped(changed, place, chance)
        start, rest = max(0, place - _AROUND), len(changed) - place - _AROUND
        if critical(attempt[start : max(place, len(attempt) - rest)]) == critical(changed[start : max(place, len(changed) - rest)]):
            changed = attempt
    return changed


def _homophone(text: str, place: int, chance: random.Random) -> str:
    others = homophones()[text[place]]
    return text[:place] + others[min(chance.randrange(len(others)), chance.randrange(len(others)))] + text[place + 1 :]


def _mistyped(text: str, place: int, chance: random.Random) -> str:
    match = _WORD.match(text, place)
    if match is None:
        return text
    word = match[0]
    at = chance.randrange(1, len(word))
    kind = chance.randrange(4)
    if kind == 0:
        near = keys()[word[at]]
        new = word[:at] + near[chance.randrange(len(near))] + word[at + 1 :]
    elif kind == 1:
        new = word[:at] + word[at + 1 :]
    elif kind == 2:
        new = word[:at] + word[at] + word[at:]
    else:
        new = word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]
    return text[:place] + new + text[match.end() :]


def format_noise(text: str, language: str | None, chance: random.Random) -> str:
    """Return `text` with its format broken in one way: 140/90 as 14090, no punctuation, full-width digits, or (Latin) lower case alone."""
    ways = [_SIGNS.sub(" " if language != "zh" else "", text).strip()]
    if _RATIO.search(text):
        ways += [_RATIO.sub(r"\1\2", text)] * 2
    if re.search("[0-9]", text):
        ways.append(re.sub("[0-9]", lambda found: chr(ord(found[0]) + _WIDE_AT), text))
    if language != "zh":
        ways.append(text.lower())
    ways = [way for way in ways if way != text]
    return ways[chance.randrange(len(ways))] if ways else text
