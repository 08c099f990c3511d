"""One plain form of a text for searching: what looks the same to a reader is the same to a rule.

Decimal digits of all scripts, mathematical and full-width letters, dashes and spaces become their ASCII forms; characters that cannot be
seen are taken out. Offsets in the plain form lead back to the text itself.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

__all__ = ["NEVER", "Folded", "fold"]

NEVER = "\uffff"
"""A noncharacter (Unicode 23.7) that no folded text holds."""

_UNSEEN = regex.compile(
    r"[\p{Cf}\uffff\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|(?<=[\p{Nd}A-Za-z])\p{Mn}+"
)
"""Format characters (zero width, direction, soft hyphen, tags), fillers, variation selectors, controls, marks put on digits and letters."""

_RANGES = (
    (0x80, 0x3000),
    (0x3000, 0x3001),
    (0xA000, 0xD7FF),
    (0xF900, 0x11FFF),
    (0x1D400, 0x1D800),
    (0x1E140, 0x1E300),
    (0x1E4F0, 0x1E960),
    (0x1FBF0, 0x1FBFA),
)
_JOINTS = frozenset("@.-+_/%")


@lru_cache(maxsize=1)
def _table() -> dict[int, str]:
    table = {}
    for start, stop in _RANGES:
        for code in range(start, stop):
            if (plain := _plain(chr(code))) is not None:
                table[code] = plain
    return table


def _plain(char: str) -> str | None:
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Zs":
        return " "
    if category == "Pd" or char == "\u2212":
        return "-"
    if category[0] in "LPS" and unicodedata.decomposition(char).startswith(("<wide>", "<font>")):
        plain = unicodedata.normalize("NFKC", char)
        if len(plain) == 1 and plain.isascii() and (plain.isalnum() or plain in _JOINTS):
            return plain
    return None


@dataclass(frozen=True, slots=True)
class Folded:
    """A plain form and where each of its characters stands in the text; `places` is None where nothing was taken out."""

    plain: str
    size: int
    places: Sequence[int] | None

    def original(self, place: int) -> int:
        """Return where in the text a stretch begins that begins at `place` of the plain form."""
        if self.places is None:
            return place
        return self.places[place] if place < len(self.places) else self.size

    def place(self, original: int) -> int:
        """Return the place in the plain form of what stands at `original` of the text, or next to it where that was taken out."""
        return original if self.places is None else bisect_left(self.places, original)

    def end(self, place: int) -> int:
        """Return where in the text a stretch ends that ends before `place` of the plain form."""
        if self.places is None:
            return place
        return self.places[place - 1] + 1 if place else 0


def fold(text: str) -> Folded:
    """Return the plain form of a text."""
    if text.isascii() and _UNSEEN.search(text) is None:
        return Folded(text, len(text), None)
    unseen = {place for match in _UNSEEN.finditer(text) for place in range(*match.span())}
    if not unseen:
        return Folded(text.translate(_table()), len(text), None)
    places = [place for place in range(len(text)) if place not in unseen]
    return Folded("".join(text[place] for place in places).translate(_table()), len(text), places)
