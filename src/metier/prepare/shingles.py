"""Texts as sets of hashed shingles, many texts at once, without one Python object a shingle.

A text is folded (see `compare.fold`), cut into units and hashed window by window. Units are characters; with `unit="words"` a run of letters
and digits is one unit and every Han letter is its own. A window of `han` units counts where these units hold a Han letter, elsewhere a window
of `other` units: the size follows the script at the place, so mixed texts need no decision about the whole. A text without a full window is
one shingle.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metier.prepare.compare import fold

__all__ = ["Codes", "Hashes", "Offsets", "Shingling", "distinct", "folded", "letter_hashes", "mix", "shingle_sets", "word_counts"]

Hashes: TypeAlias = NDArray[np.uint64]
Offsets: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.bool_]

_PRIME = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_SPACE, _HAN, _ALNUM, _HARD = 1, 2, 4, 8
_BMP = 0x10000
_JAMO = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]


@dataclass(frozen=True, slots=True)
class Shingling:
    """How texts are cut: units a shingle where there are Han letters and elsewhere, and what a unit is."""

    han: int = 5
    other: int = 13
    unit: Literal["characters", "words"] = "characters"


@dataclass(frozen=True, slots=True)
class Codes:
    """Folded texts, one after the other: their code points, what each is (bits), and where each text begins (one offset more than texts)."""

    points: NDArray[np.uint32]
    kinds: NDArray[np.uint8]
    offsets: Offsets

    def han(self) -> Offsets:
        """Return the number of Han letters of each text."""
        return _per_text((self.kinds & _HAN) != 0, self.offsets)


def mix(values: Hashes) -> Hashes:
    """Return SplitMix64's finaliser of each value (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _composing() -> set[int]:
    """Return the code points that may join with the one before them under NFKC (UAX 15): they need their neighbours."""
    found = set(_JAMO)
    for code in range(_BMP):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    return found


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return for each code point of the BMP its folded form and its kind; those that fold to several or with neighbours are hard."""
    points, kinds = np.arange(_BMP, dtype=np.uint32), np.zeros(_BMP, dtype=np.uint8)
    composing = _composing()
    kinds[0x3400:0x4DC0] = kinds[0x4E00:0xA000] = _HAN | _ALNUM
    kinds[0xAC00:0xD7A4] = _ALNUM
    plain = (*range(0x3400), *range(0x4DC0, 0x4E00), *range(0xA000, 0xAC00), *range(0xF900, _BMP))
    for code in plain:
        character = chr(code)
        form = unicodedata.normalize("NFKC", character).casefold()
        if character.isspace():
            points[code], kinds[code] = 0x20, _SPACE
        elif len(form) != 1 or ord(form) >= _BMP or {code, ord(form)} & composing or unicodedata.combining(form) or unicodedata.combining(character):
            kinds[code] = _HARD
        else:
            points[code] = ord(form)
            letter = ord(form)
            han = letter in (0x3005, 0x3007) or 0x3400 <= letter < 0x4DC0 or 0x4E00 <= letter < 0xA000 or 0xF900 <= letter < 0xFB00
            kinds[code] = han * _HAN | form.isalnum() * _ALNUM
    return points, kinds


def _encoded(texts: Sequence[str]) -> tuple[NDArray[np.uint32], Offsets]:
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return points, np.concatenate(([0], np.cumsum(lengths)))


def _kinds(points: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return what each code point is. Outside the BMP, Han letters and pictographs are plain; all else is hard."""
    _, table = _tables()
    if not len(points) or points.max() < _BMP:
        return table[points]
    kinds = table[np.where(points < _BMP, points, 0x41)]
    kinds[points >= _BMP] = _HARD
    kinds[(points >= 0x1F300) & (points < 0x1FB00)] = 0
    kinds[(points >= 0x20000) & (points < 0x40000) & ~((points >= 0x2F800) & (points < 0x2FA20))] = _HAN | _ALNUM
    return kinds


def _per_text(bits: Bits, offsets: Offsets) -> Offsets:
    """Return how many bits are set in each text."""
    total = np.concatenate(([0], np.cumsum(bits, dtype=np.int64)))
    return total[offsets[1:]] - total[offsets[:-1]]


def folded(texts: Sequence[str]) -> Codes:
    """Return the code points of `compare.fold(text)` for each text, by table; texts with code points that need their neighbours are folded one by one."""
    texts = [text.strip() for text in texts]
    points, offsets = _encoded(texts)
    kinds = _kinds(points)
    hard = (kinds & _HARD) != 0
    slow = np.flatnonzero(_per_text(hard, offsets)) if hard.any() else np.zeros(0, dtype=np.int64)
    if len(slow):
        for number in slow.tolist():
            texts[number] = fold(texts[number])
        points, offsets = _encoded(texts)
        kinds = _kinds(points)
    table, _ = _tables()
    plain = table[points] if points.max(initial=0) < _BMP else np.where(points < _BMP, table[np.minimum(points, _BMP - 1)], points)
    if len(slow):
        done = np.zeros(len(texts), dtype=bool)
        done[slow] = True
        plain = np.where(np.repeat(done, np.diff(offsets)), points, plain)
        kinds = _settled(kinds, plain)
    space = (kinds & _SPACE) != 0
    double = space[1:] & space[:-1]
    if double.any():
        keep = np.concatenate(([True], ~double))
        offsets = np.concatenate(([0], np.cumsum(_per_text(keep, offsets))))
        plain, kinds = plain[keep], kinds[keep]
    return Codes(plain, kinds, offsets)


def _settled(kinds: NDArray[np.uint8], points: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the kinds with letters and digits marked among the code points that stayed hard."""
    hard = np.flatnonzero((kinds & _HARD) != 0)
    letters = [chr(point).isalnum() or unicodedata.combining(chr(point)) != 0 for point in points[hard].tolist()]
    kinds = kinds.copy()
    kinds[hard] = np.where(letters, _ALNUM, 0)
    return kinds


def letter_hashes(codes: Codes) -> Hashes:
    """Return a hash of each text's letters and digits alone, 0 where there are none: equal where `compare.bare` is equal."""
    letters = (codes.kinds & _ALNUM) != 0
    count = _per_text(letters, codes.offsets)
    found = _whole(codes.points[letters].astype(np.uint64), np.concatenate(([0], np.cumsum(count))))
    return np.where(count > 0, found, np.uint64(0))


def word_counts(codes: Codes) -> Offsets:
    """Return the number of words of each text; every Han letter is one."""
    return np.diff(_words(codes)[2])


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def _whole(values: Hashes, offsets: Offsets) -> Hashes:
    """Return a polynomial hash (modulo 2^64) of each stretch of values."""
    longest = int(offsets[-1])
    inverse = pow(_PRIME, -1, 1 << 64)
    total = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(mix(values) * _powers(_PRIME, longest), dtype=np.uint64)))
    return mix((total[offsets[1:]] - total[offsets[:-1]]) * _powers(inverse, longest + 1)[offsets[:-1]] + np.diff(offsets).astype(np.uint64))


def _words(codes: Codes) -> tuple[Hashes, Bits, Offsets]:
    """Return the hash of each word, whether it is a Han letter, and where each text's words begin. A text without words is one word."""
    word, han = (codes.kinds & _ALNUM) != 0, (codes.kinds & _HAN) != 0
    begins = np.zeros(len(word), dtype=bool)
    begins[codes.offsets[:-1][np.diff(codes.offsets) > 0]] = True
    start = word.copy()
    start[1:] &= han[1:] | han[:-1] | ~word[:-1] | begins[1:]
    count = _per_text(start, codes.offsets)
    empty = np.flatnonzero((count == 0) & (np.diff(codes.offsets) > 0))
    start[codes.offsets[empty]] = True
    word |= np.repeat(np.isin(np.arange(len(count)), empty), np.diff(codes.offsets))
    first = np.flatnonzero(start)
    stop = ~word
    stop[1:] |= start[1:]
    ends = np.append(np.flatnonzero(stop), len(word))
    last = ends[np.searchsorted(ends, first, side="right")]
    values = codes.points.astype(np.uint64)
    bounds = np.stack((first, last), axis=1).ravel()
    hashes = _whole(values, np.append(bounds, len(values)))[::2] if len(first) else np.zeros(0, dtype=np.uint64)
    return hashes, han[first], np.concatenate(([0], np.cumsum(_per_text(start, codes.offsets))))


def _rolled(values: Hashes, size: int) -> Hashes:
    """Return the polynomial hash of every window of `size` values, by doubling: log2(size) passes instead of `size`."""
    found, length, done = values, 1, None
    reached = 0
    while size:
        if size & 1:
            done = found if done is None else done[: len(found) - reached] * np.uint64(pow(_PRIME, length, 1 << 64)) + found[reached : reached + len(done)]
            reached += length
        size >>= 1
        if size:
            found = found[:-length] * np.uint64(pow(_PRIME, length, 1 << 64)) + found[length:]
            length *= 2
    assert done is not None
    return done


def _windows(values: Hashes, size: int) -> Hashes:
    """Return the hash of the window that begins at each value; zero where none fits."""
    out = np.zeros(len(values), dtype=np.uint64)
    if len(values) >= size:
        out[: len(values) - size + 1] = _rolled(values, size)
    return out


def _windows_at(values: Hashes, size: int, places: Offsets) -> Hashes:
    """Return the hash of the window that begins at each of a few places: the same as `_windows`, without the rest."""
    found = np.zeros(len(places), dtype=np.uint64)
    for step in range(size):
        found *= np.uint64(_PRIME)
        found += values[places + step]
    return found


def _near_han(han: Bits, ends: Offsets, size: int) -> Bits:
    """Return whether a Han letter stands among the `size` units from each place on, `ends` units before the end of its text."""
    places = np.arange(len(han))
    ahead = np.minimum.accumulate(np.where(han, places, len(han) + size)[::-1])[::-1] - places
    near: Bits = ahead < np.minimum(ends, size)
    return near


def shingle_sets(texts: Sequence[str] | Codes, cut: Shingling = Shingling(), *, whole: bool = True) -> tuple[Hashes, Offsets]:
    """Return the 64-bit hashes of every text's shingles, one after the other, and where each text's begin.

    Text i has the hashes from offset i to offset i + 1, in the order of the text, repeated ones included. An empty text has one: that of nothing.
    With `whole=False` texts without a full window have none.
    """
    codes = texts if isinstance(texts, Codes) else folded(texts)
    if len(codes.offsets) == 1:
        return np.zeros(0, dtype=np.uint64), np.zeros(1, dtype=np.int64)
    if cut.unit == "words":
        values, han, offsets = _words(codes)
    else:
        values, han, offsets = codes.points.astype(np.uint64), (codes.kinds & _HAN) != 0, codes.offsets
    ends = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(len(values))
    if not han.any():
        hashes, valid = _windows(values, cut.other), ends >= cut.other
    else:
        near = _near_han(han, ends, cut.han)
        valid = ends >= np.where(near, cut.han, cut.other)
        hashes = _windows(values, cut.han)
        far = np.flatnonzero(valid & ~near)
        hashes[far] = _windows_at(values, cut.other, far) if len(far) < len(values) // 4 else _windows(values, cut.other)[far]
    if not whole:
        return mix(hashes[valid]), np.concatenate(([0], np.cumsum(_per_text(valid, offsets))))
    return _filled(hashes, valid, values, offsets)


def _filled(hashes: Hashes, valid: Bits, values: Hashes, offsets: Offsets) -> tuple[Hashes, Offsets]:
    """Return the hashes of the full windows; a text without one has the hash of the whole."""
    count = _per_text(valid, offsets)
    short = count == 0
    found = mix(hashes[valid])
    if not short.any():
        return found, np.concatenate(([0], np.cumsum(count)))
    places = np.concatenate(([0], np.cumsum(count)))[:-1][short]
    whole = _whole(values, offsets)[short]
    return np.insert(found, places, whole), np.concatenate(([0], np.cumsum(np.maximum(count, 1))))


def distinct(hashes: Hashes, offsets: Offsets) -> list[Hashes]:
    """Return the sorted distinct hashes of each text."""
    return [_sorted(hashes[first:last]) for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def _sorted(hashes: Hashes) -> Hashes:
    """Return what `numpy.unique` does, which hashes and then sorts, in half of its time."""
    found = np.sort(hashes)
    return found[np.concatenate(([True], found[1:] != found[:-1]))] if len(found) else found
