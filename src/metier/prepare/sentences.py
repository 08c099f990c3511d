"""Sentences and articles of a text as stretches that cover it whole: nothing is lost between them.

Both languages are cut by one set of marks, because Chinese records hold English sentences and the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml

__all__ = ["articles", "clauses", "sentences"]

_CLOSERS = "\"'\\)\\]\\}\u201d\u2019\u300d\u300f\u300b\u3011\uff09\u3009"
_HAN = "\u3400-\u9fff\u3000-\u303f\uff00-\uffef"
_END = re.compile(f"[\u3002\uff01\uff1f]+[{_CLOSERS}]*|\u2026+[{_CLOSERS}]*(?![\u2026\u3002\uff01\uff1f])|[.!?]+[{_CLOSERS}]*(?=\\s|$|[{_HAN}])|\n+")
_CLAUSE = re.compile(f"[,;:\uff0c\uff1b\uff1a\u3001][{_CLOSERS}]*\\s*")
_WORD_BEFORE = re.compile("([A-Za-z][A-Za-z.]*)$")
_BEGINS = re.compile(r"\s*[\"'(\[\u201c\u2018\u300c]*\s*([A-Z0-9\u3400-\u9fff])")
_ITEM_NUMBER = re.compile("(?:^|[\n\u3002\uff01\uff1f\uff1b])[ \t]*(?:[0-9]{1,3}|[A-Za-z]|[ivxlIVXL]{1,5})$")


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    value: Mapping[str, Any] = load_yaml(Path(__file__).parent / "data" / "sentences.yaml").value
    heading = re.compile("(?:^|(?<=\n))[ \t\u3000]*(?:" + "|".join(value["headings"]) + ")")
    return {"en": frozenset(value["en"]), "may_end": frozenset(value["may_end"]), "heading": heading}


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the sentences of a text as (start, end), blanks after a sentence belonging to it; together they are the text.

    A line end closes a sentence. A full stop does not after an abbreviation, an initial, inside a number or after the number of a
    list item; closing quotes and brackets stay with their sentence.
    """
    found, start = [], 0
    for match in _END.finditer(text):
        end = _with_blanks(text, match.end())
        if end <= start or ("\n" not in match[0] and match[0][0] == "." and not _stops(text, match.start(), match.end())):
            continue
        if text[start:end].strip():
            found.append((start, end))
            start = end
    if start < len(text):
        if text[start:].strip() or not found:
            found.append((start, len(text)))
        else:
            found[-1] = (found[-1][0], len(text))
    return found


def _with_blanks(text: str, end: int) -> int:
    while end < len(text) and text[end].isspace():
        end += 1
    return end


def _stops(text: str, stop: int, after: int) -> bool:
    """Return whether the full stop at `stop` ends a sentence; `after` is where its closing marks end."""
    begins = _BEGINS.match(text, after)
    if text[stop : stop + 2] == ".." or after >= len(text.rstrip()):
        return True
    if begins is None or _ITEM_NUMBER.search(text, max(0, stop - 12), stop):
        return False
    word = _WORD_BEFORE.search(text, max(0, stop - 24), stop)
    if word is None:
        return True
    name = word[1].lower()
    if len(name) == 1 and word[1].isupper():
        return False
    if "." in name:
        # U.S. The court: a capital after it is no proof, so the sentence goes on unless a line ends.
        return False
    data = _data()
    if name in data["may_end"]:
        return begins[1].isupper()
    return name not in data["en"]


def articles(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text between headings (an article, a section, a Markdown heading at the start of a line)."""
    starts = sorted({0, *(match.start() for match in _data()["heading"].finditer(text))})
    return [(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if end > start]


def clauses(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the clauses of one stretch of a text (between commas, semicolons and colons), covering it whole."""
    for match in _CLAUSE.finditer(text, start, end):
        # A comma inside a number is no border.
        if text[match.start()] in ",:" and match.end() < end and text[match.end()].isdigit() and match.end() == match.start() + 1:
            continue
        if match.end() > start:
            yield start, match.end()
            start = match.end()
    if start < end:
        yield start, end
