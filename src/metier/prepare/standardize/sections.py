"""Headings inside a text: under which of them something stands."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

import regex

__all__ = ["Sections"]

_HEADING = regex.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+(?P<marked>[^\n]{1,60})"
    r"|\u3010(?P<bracketed>[^\u3010\u3011\n]{1,30})\u3011"
    r"|(?P<han>\p{Han}{2,10})[:\uff1a]"
    r"|(?P<capitals>[A-Z][A-Z &/-]{3,40}):)",
    regex.MULTILINE,
)


_POSSIBLE = regex.compile("[#\u3010:\uff1a]")


class Sections:
    """The headings of one text: Markdown's, those in lenticular brackets, and a short label with a colon at the begin of a line.

    A label that begins several lines is a speaker, not a heading.
    """

    def __init__(self, text: str) -> None:
        if not _POSSIBLE.search(text):
            self._starts: list[int] = []
            self._titles: list[str] = []
            return
        found = [(match.start(), (match[match.lastgroup or 0]).strip()) for match in _HEADING.finditer(text)]
        counts = Counter(title for _, title in found)
        kept = [(start, title) for start, title in found if counts[title] == 1]
        self._starts = [start for start, _ in kept]
        self._titles = [title for _, title in kept]

    def title(self, place: int) -> str | None:
        """Return the last heading that begins at or before a place, or None."""
        index = bisect_right(self._starts, place) - 1
        return self._titles[index] if index >= 0 else None
