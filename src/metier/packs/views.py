"""Views of a text in which identifiers are looked for, and the way back from a place in a view to the place in the text.

The plain view has one width of letters, digits, dashes and spaces, and no invisible characters. Beside it, short stretches are looked
at in which a line break is taken out of the middle of a value, or letters that scanners take for digits are read as digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from metier.config import load_yaml
from metier.packs.matching import WIDE

__all__ = ["Stretch", "View", "goes_on", "joined", "plain_view", "read_as_digits", "writing"]

_REACH = 64
_NEAR = 24
_SHORTEST_CONFUSED = 6

_INVISIBLE = "\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63"
_SPACES = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_FOLD = {**WIDE, **dict.fromkeys(map(ord, _DASHES), "-"), **dict.fromkeys(map(ord, _SPACES), " ")}
_UNUSUAL = re.compile(f"[{_INVISIBLE}{_DASHES}{_SPACES}\uff05\uff0b\uff0d-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a]")
_HIDDEN = re.compile(f"[{_INVISIBLE}]+")

_BREAK = re.compile(r"(?<=[^\s])-?[ \t]*\r?\n[ \t]*(?=[^\s])")
_TELLING = re.compile("[0-9@]|://")
_INNER = re.compile(r"[^\s\u3000-\u303f\uff00-\uff0c\uff1a-\uff1f,;:!?|\"'()\[\]{}<>]")


_HEAD = re.compile(r"[0-9A-Za-z@._/:?=&%+-]+[^\s0-9A-Za-z]?|[^\s0-9A-Za-z]{1,4}")
_PREFIX = re.compile("[A-Z]{1,4}")
_TAIL = re.compile(r"(?:[0-9A-Za-z@._/?=&%+-]+|[^\s0-9A-Za-z]{1,4})$")


class View(NamedTuple):
    """A text as it is searched."""

    plain: str
    places: Sequence[int] | None
    """Offset in the text of each character of `plain`; None: the offsets are the same."""

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the stretch of the text that a stretch of the view shows; it is not empty."""
        return (start, end) if self.places is None else (self.places[start], self.places[end - 1] + 1)


class Stretch(NamedTuple):
    """A short piece of a plain view, changed, with the offset in the view of each of its characters."""

    plain: str
    places: Sequence[int]
    changed: tuple[int, int]
    """A match in the piece is new only where it holds what was changed: it begins before the second and ends after the first."""


@lru_cache(maxsize=1)
def writing() -> Any:
    """Return the content of ``data/writing.yaml``."""
    return load_yaml(Path(__file__).parent / "data" / "writing.yaml").value


def plain_view(text: str) -> View:
    """Return the text with folded width, dashes and spaces, without invisible characters (Unicode Cf: joiners, marks of direction)."""
    if text.isascii() or not _UNUSUAL.search(text):
        return View(text, None)
    folded = text.translate(_FOLD)
    if not _HIDDEN.search(folded):
        return View(folded, None)
    places: list[int] = []
    end = 0
    for hidden in _HIDDEN.finditer(folded):
        places.extend(range(end, hidden.start()))
        end = hidden.end()
    places.extend(range(end, len(folded)))
    return View(_HIDDEN.sub("", folded), places)


def joined(plain: str) -> Iterator[Stretch]:
    """Yield the surroundings of each line break that may stand inside a value, without the break (and the hyphen before it)."""
    for found in _BREAK.finditer(plain):
        start, end = found.span()
        if not (_INNER.match(plain, start - 1) and _INNER.match(plain, end) and _telling(plain, start, end)):
            continue
        first, last = max(0, start - _REACH), min(len(plain), end + _REACH)
        yield Stretch(plain[first:start] + plain[end:last], [*range(first, start), *range(end, last)], (start - first, start - first))


def _telling(plain: str, start: int, end: int) -> bool:
    """Return whether a digit or an @ stands close enough to a break for a value to reach across it."""
    left, right = plain[max(0, start - _NEAR) : start], plain[end : end + _NEAR]
    numeral = _signs()[0]
    return any(_TELLING.search(side) for side in (left, right)) or any(numeral.match(char) for char in (left[-1], right[0]))


@lru_cache(maxsize=1)
def _signs() -> tuple[re.Pattern[str], re.Pattern[str], frozenset[str]]:
    item = re.compile(rf"[0-9]{{1,3}}(?:[.)\u3001][ ]|\u3001|[- ]?(?:{'|'.join(map(re.escape, writing()['units']))})s?(?![A-Za-z])|%)")
    return re.compile(f"[0-9{writing()['numerals']}]"), item, frozenset(writing()["line_ends"])


def goes_on(plain: str, start: int, end: int, *, ended: bool) -> bool:
    """Return whether a value that is whole on one side of a line break may still go on across it.

    After a hyphen it does. `ended` says that it is whole before the break: the next line then begins with something of a number that is
    neither the number of an item of a list nor a measure.
    A value whole behind the break goes on where the line before ends in something of a number, or a mail address in a word that is no
    part of a sentence.
    """
    if plain[start] == "-":
        return True
    numeral, item, words = _signs()
    head = _HEAD.match(plain, end)
    if ended:
        return head is not None and numeral.search(head.group()) is not None and item.match(plain, end) is None
    tail = _TAIL.search(plain[max(0, start - _REACH) : start])
    if tail is None or head is None:
        return False
    return (
        numeral.search(tail.group()) is not None
        or _PREFIX.fullmatch(tail.group()) is not None
        or ("@" in head.group() and tail.group().lower() not in words and len(tail.group()) > 1)
    )


@lru_cache(maxsize=1)
def _confusion() -> tuple[dict[int, str], re.Pattern[str], re.Pattern[str]]:
    table = {ord(letter): str(digit) for letter, digit in writing()["lookalikes"].items()}
    letters = "".join(re.escape(chr(letter)) for letter in table)
    sign = re.compile(f"[0-9][{letters}]|[{letters}][0-9]|(?<![0-9A-Za-z])[{letters}]{{1,3}}[ .()-]{{1,2}}[0-9]")
    number = re.compile(
        f"(?<![0-9A-Za-z])(?:[A-Z]{{3}}(?=[0-9{letters}])|[A-Z](?=[0-9]))??(?P<digits>[0-9{letters}](?:[ .()-]{{0,2}}[0-9{letters}])*)(?=[Xx]?(?![0-9A-Za-z]))"
    )
    return table, sign, number


def read_as_digits(plain: str) -> Iterator[Stretch]:
    """Yield the surroundings of each number of which letters are a part that look like digits, with digits in their place.

    At least half of the characters are digits, and there are six or more: shorter mixtures are words and codes.
    """
    table, sign, number = _confusion()
    if not sign.search(plain):
        return
    for found in number.finditer(plain):
        start, end = found.span("digits")
        mixed = plain[start:end]
        digits = sum(char.isdigit() for char in mixed)
        letters = sum(char.isalpha() or char == "|" for char in mixed)
        if not letters or digits < letters or digits + letters < _SHORTEST_CONFUSED:
            continue
        first, last = max(0, start - _REACH), min(len(plain), end + _REACH)
        changed = plain[first:start] + mixed.translate(table) + plain[end:last]
        yield Stretch(changed, range(first, last), (start - first, end - first))
