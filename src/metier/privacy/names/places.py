"""Where a Chinese name may begin, by the characters alone: one pass over many texts at once, before any pattern or tagger is asked.

Two questions are answered. Where can a pattern of `patterns_zh` begin? The answer holds every such place and some more, so that a pattern
is tried there instead of everywhere, and finds the same. And where may a name stand that no pattern announces, so that a neural tagger has
to be asked? That answer is a guess: surnames before characters of given names, given names by themselves, transliterations, nicknames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntFlag, auto
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

from metier.privacy.names.lexicon_zh import RARE, ChineseLexicon, chinese_lexicon
from metier.privacy.names.patterns_zh import AND, CERTAIN, COMMA, CROSS, DOT, QUOTE, STEMS

__all__ = ["DOUBT", "places"]

DOUBT = "doubt"
"""Under which the places stand at which a neural tagger has to be asked."""
_TOP = 0x34000
"""Above every Chinese character that Unicode has; what lies higher is of no kind."""
_GAP = 5
"""Characters of no kind between two texts: as many as one looks ahead or back."""
_NO_GIVEN = -9
"""Score of what is no Chinese character, as part of a given name."""

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


class _Kind(IntFlag):
    """What a character can be; one bit each."""

    HAN = auto()
    PLAIN = auto()
    DOUBTFUL = auto()
    COMPOUND = auto()
    TITLE = auto()
    HINT = auto()
    BEFORE = auto()
    AFTER = auto()
    DIGIT = auto()
    STEM = auto()
    FILLER = auto()
    DOT = auto()
    SPACE = auto()
    UPPER = auto()
    LOWER = auto()
    QUOTE = auto()
    FAMILIAR = auto()
    FOREIGN = auto()
    MOSTLY = auto()


@dataclass(frozen=True, slots=True)
class _Tables:
    """Kinds and scores by code point, and sorted pairs of characters."""

    kinds: npt.NDArray[np.uint32]
    given: npt.NDArray[np.int8]
    compound: Numbers
    title: Numbers
    hint: Numbers
    hint_end: Numbers
    words: Numbers


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    lexicon = chinese_lexicon()
    kinds, given = np.zeros(_TOP, np.uint32), np.full(_TOP, _NO_GIVEN, np.int8)
    hints = [*lexicon.lists["roles"], *lexicon.lists["labels"]]
    for kind, chars in _chars(lexicon, hints):
        kinds[[ord(char) for char in set(chars)]] |= kind.value
    given[(kinds & _Kind.HAN.value) > 0] = RARE
    for char, score in lexicon.given.items():
        given[ord(char)] = score
    return _Tables(
        kinds,
        given,
        compound=_pairs(name[:2] for name in lexicon.compound),
        title=_pairs(lexicon.lists["titles"]),
        hint=_pairs(hints),
        hint_end=_pairs(hint[-2:] for hint in hints if len(hint) > 1),
        words=_pairs(word for word in lexicon.words | lexicon.not_names | lexicon.ordinary if len(word) == 2),
    )


def _chars(lexicon: ChineseLexicon, hints: Iterable[str]) -> Iterable[tuple[_Kind, str]]:
    """Return which characters are of each kind."""
    return (
        (_Kind.HAN, "".join(regex.findall(r"\p{Han}", "".join(map(chr, range(_TOP)))))),
        (_Kind.PLAIN, "".join(lexicon.plain)),
        (_Kind.DOUBTFUL, "".join(lexicon.doubtful)),
        (_Kind.COMPOUND, "".join(lexicon.compound_first)),
        (_Kind.TITLE, "".join(title[0] for title in lexicon.lists["titles"])),
        (_Kind.HINT, "".join(hint[0] for hint in hints)),
        (_Kind.BEFORE, COMMA + AND + "".join(lead[-1] for lead in lexicon.lists["leads"])),
        (_Kind.AFTER, "".join(lexicon.after)),
        (_Kind.DIGIT, "0123456789"),
        (_Kind.STEM, STEMS),
        (_Kind.FILLER, CERTAIN + CROSS),
        (_Kind.DOT, DOT),
        (_Kind.SPACE, " \u3000"),
        (_Kind.UPPER, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (_Kind.LOWER, "abcdefghijklmnopqrstuvwxyz"),
        (_Kind.QUOTE, QUOTE),
        (_Kind.FAMILIAR, "\u5c0f\u8001\u963f"),
        (_Kind.FOREIGN, CERTAIN + "".join(lexicon.transliteration)),
        (_Kind.MOSTLY, "".join(lexicon.plain - lexicon.ordinary_surnames)),
    )


def _pairs(words: Iterable[str]) -> Numbers:
    """Return the first two characters of each word as a number, sorted; of a word of one character only this one."""
    return np.array(sorted({ord(word[0]) * _TOP + (ord(word[1]) if len(word) > 1 else 0) for word in words}), np.int64)


def _among(numbers: Numbers, table: Numbers) -> Flags:
    place = np.searchsorted(table, numbers)
    return np.asarray(table[np.minimum(place, len(table) - 1)] == numbers)


class _Batch:
    """The characters of many texts in one row, with gaps between."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.tables = _tables()
        gap = "\0" * _GAP
        row = gap + gap.join(texts) + gap
        # A lone surrogate is a character of no kind, too, but must not stop the others.
        codes = np.frombuffer(row.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        self.codes: Numbers = np.minimum(codes, _TOP - 1)
        self.kinds = self.tables.kinds[self.codes]
        self.size = len(row) - 2 * _GAP

    def has(self, kind: _Kind, ahead: int = 0) -> Flags:
        """Return for each place whether the character `ahead` of it is of one of these kinds."""
        return np.asarray((self.kinds[_GAP + ahead : _GAP + ahead + self.size] & kind.value) != 0)

    def pair(self, at: Numbers, table: Numbers) -> Flags:
        """Return at which of some places two characters stand that are in a table of pairs."""
        first = self.codes[at + _GAP] * _TOP
        return _among(first + self.codes[at + _GAP + 1], table)

    def begins(self, kind: _Kind, table: Numbers) -> Flags:
        """Return for each place whether a word may begin there: its first two characters, or its only one, are in the table."""
        at = np.flatnonzero(self.has(kind))
        found = np.zeros(self.size, bool)
        found[at] = self.pair(at, table) | _among(self.codes[at + _GAP] * _TOP, table)
        return found


def _ahead(flags: Flags, by: int) -> Flags:
    """Return for each place what the flags say `by` places further on."""
    out = np.zeros_like(flags)
    out[: max(0, len(flags) - by)] = flags[by:]
    return out


def places(texts: Sequence[str]) -> list[dict[str, list[int]]]:
    """Return for each text, folded to half width, the places by rule, in order; what a text has no place for is missing.

    For `titled`, `announced`, `candidate` and `half` they are places where the pattern may begin. For the other patterns they only say
    that the text has to be looked through. `DOUBT` holds the places that a neural tagger has to be asked about.
    """
    batch = _Batch(texts)
    bounds = np.cumsum([0, *(len(text) + _GAP for text in texts)])
    out: list[dict[str, list[int]]] = [{} for _ in texts]
    for rule, at in (*_patterns(batch), (DOUBT, _doubts(batch))):
        owners = np.searchsorted(bounds, at, side="right") - 1
        for owner, place in zip(owners.tolist(), (at - bounds[owners]).tolist(), strict=True):
            out[owner].setdefault(rule, []).append(place)
    return out


def _patterns(batch: _Batch) -> Iterable[tuple[str, Numbers]]:
    """Yield each rule with the places that its pattern needs: each is a necessary condition read off the pattern."""
    has, kind = batch.has, _Kind
    han, plain, compound = has(kind.HAN), has(kind.PLAIN), batch.begins(kind.COMPOUND, batch.tables.compound)
    every = plain | has(kind.DOUBTFUL) | compound

    def followed(surname: Flags, by: Flags) -> Flags:
        return np.asarray(surname & _ahead(by, 1) | compound & _ahead(by, 2))

    def within(flags: Flags) -> Flags:
        return np.asarray(_ahead(flags, 1) | _ahead(flags, 2) | _ahead(flags, 3) | (_ahead(flags, 4) & compound))

    stem = has(kind.STEM) & (has(kind.BEFORE, 1) | ~has(kind.HAN, 1) | has(kind.AFTER, 1))
    letter = has(kind.UPPER | kind.LOWER)
    dotted = has(kind.FOREIGN, -1) & has(kind.DOT) & has(kind.FOREIGN, 1)
    spaced = has(kind.SPACE) & has(kind.UPPER, 1) & (_behind(letter, 1) | _behind(letter, 2))
    free = (plain | compound) & (~has(kind.HAN, -1) | has(kind.BEFORE, -1))
    for rule, flags in (
        ("numbered", followed(every, has(kind.DIGIT) | stem)),
        ("alias", has(kind.QUOTE)),
        ("nickname", has(kind.FAMILIAR) & _ahead(plain | compound, 1)),
        ("spaced", followed(plain, has(kind.SPACE))),
        ("pinyin", spaced),
        ("half", every & within(has(kind.FILLER))),
        ("foreign", dotted),
        ("titled", every & within(batch.begins(kind.TITLE, batch.tables.title))),
        ("announced", batch.begins(kind.HINT, batch.tables.hint)),
        ("candidate", followed(free, han)),
    ):
        yield rule, np.flatnonzero(flags)


def _behind(flags: Flags, by: int) -> Flags:
    """Return for each place what the flags say `by` places before it."""
    out = np.zeros_like(flags)
    out[by:] = flags[: max(0, len(flags) - by)]
    return out


def _doubts(batch: _Batch, *, plain: int = -3, doubtful: int = 1, follows: int = 2, alone: int = 5, sure: int = 7, foreign: int = 3) -> Numbers:
    """Return where a name may stand that no pattern announces; each number is the least sum of scores of the characters behind or within.

    The numbers were chosen on the sentences of the `dev` part and on real text, so that what the tagger adds there is still found.
    """
    has, kind, words = batch.has, _Kind, batch.tables.words
    single = has(kind.PLAIN | kind.DOUBTFUL)
    compound = batch.begins(kind.COMPOUND, batch.tables.compound)
    scores = [batch.tables.given[batch.codes[_GAP + step : _GAP + step + batch.size]] for step in range(3)]
    foreigners = has(kind.FOREIGN) & has(kind.FOREIGN, 1) & has(kind.FOREIGN, 2)
    maybe = single | compound | has(kind.FAMILIAR) | foreigners | (scores[0] + scores[1] >= alone)
    at = np.flatnonzero(maybe & has(kind.HAN) & has(kind.HAN, 1))
    at = at[~batch.pair(at, words)]
    one, two, three = (score[at].astype(np.int64) for score in scores)
    inside, before = batch.pair(at + 1, words), batch.pair(at - 1, words)
    behind = np.maximum(two, two + three) - follows * (has(kind.AFTER, 1)[at] & (two < 3))
    announced = batch.pair(at - 2, batch.tables.hint_end)
    surname = (has(kind.MOSTLY)[at] & (announced | (behind >= plain))) | (single[at] & (behind >= doubtful) & ~inside)
    familiar = has(kind.FAMILIAR)[at] & (has(kind.PLAIN | kind.DOUBTFUL, 1)[at] | (two >= 3))
    given = (one + two >= alone) & (one >= 0) & (two >= 1) & ~inside & (~before | (one + two >= sure))
    transliterated = foreigners[at] & (one + two + three >= foreign) & ~inside
    chosen = at[(surname & ~before) | familiar | given | transliterated | compound[at]]
    half = np.flatnonzero(has(kind.HAN) & ~has(kind.FILLER) & has(kind.FILLER, 1) | has(kind.MOSTLY) & has(kind.DIGIT | kind.UPPER, 1))
    latin = np.flatnonzero(has(kind.UPPER) & has(kind.LOWER, 1) & has(kind.LOWER, 2) & has(kind.HAN, -1))
    return np.sort(np.concatenate([chosen, half, latin]))
