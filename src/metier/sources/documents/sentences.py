"""Where sentences end, in Chinese and English."""

from __future__ import annotations

import re
from collections.abc import Iterator

from metier.sources.documents.rules import rule, words

__all__ = ["sentences"]

_NEXT = re.compile(r"\s*")
_LAST_WORD = re.compile(r"[A-Za-z][A-Za-z.]*$")


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the sentences of `text[start:end]` as (start, end), each with the white space that follows it; together they are the whole stretch.

    A full stop inside a number, after an initial or a known abbreviation, or before a small letter ends nothing.
    """
    begin = start
    for found in rule("ends").finditer(text, start, end):
        if "." in found.group() and not _is_end(text, found.start(), found.end(), begin):
            continue
        stop = min(_NEXT.match(text, found.end()).end(), end)  # type: ignore[union-attr]
        yield begin, stop
        begin = stop
    if begin < end:
        yield begin, end


def _is_end(text: str, place: int, after: int, begin: int) -> bool:
    place_after = _NEXT.match(text, after).end()  # type: ignore[union-attr]
    following = text[place_after : place_after + 1]
    if following.isalpha() and following.islower():
        return False
    word = _LAST_WORD.search(text, max(begin, place - 12), place)
    return word is None or not (word.group() in words("abbreviations") or (len(word.group()) == 1 and word.group().isupper()))
