"""The units in which texts are compared by their words: pairs of Han letters, and words of other letters in lower case."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

from metier.prepare.language import HAN
from metier.prepare.quality.measures import phrases

__all__ = ["bucket", "terms"]

_UNIT = re.compile(f"[{HAN}]+|[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'-]*|[0-9]+(?:\\.[0-9]+)?")
_FULL = 4


def terms(text: str, *, single: bool = False) -> list[str]:
    """Return the units of a text in order: Chinese needs no word list, English plurals and the commonest words are left out.

    With `single`, Han letters count one by one too: what helps telling whether two short texts belong together.
    """
    found: list[str] = []
    stop = phrases().stop_words
    for piece in _UNIT.findall(text):
        if piece[0] >= "\u2e80":
            found += [piece[place : place + 2] for place in range(len(piece) - 1)] if len(piece) > 1 else [piece]
            if single:
                found += piece
            continue
        word = piece.lower()
        if word in stop:
            continue
        found.append(word[:-1] if len(word) > _FULL and word[-1] == "s" and word[-2] != "s" else word)
    return found


@lru_cache(maxsize=1 << 18)
def bucket(term: str, size: int) -> int:
    """Return the number below `size` that stands for a term, the same in every process (CRC-32)."""
    return zlib.crc32(term.encode(errors="surrogatepass")) % size
