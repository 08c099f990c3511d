"""Puts originals back into an answer, whole or as it arrives in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping

import regex

__all__ = ["OPENING", "Restorer"]

OPENING = "["
_TOKEN = regex.compile(r"\[(?P<kind>[A-Z][A-Z0-9_]*)_(?P<code>[a-z2-7]{6,16})\]")
_GROWING = regex.compile(r"\[(?:[A-Z](?:[A-Z0-9_]*(?:_[a-z2-7]*)?)?)?\]?")
_LONGEST = 96
"""Characters that a token has at most; what is longer is none."""


class Restorer:
    """One text on its way back. `push` pieces and pass on what it returns; at the end what `finish` returns.

    A token that is split between two pieces is held back until it is whole, or cannot become one. With `quoted` the text is the
    inside of JSON (arguments of a tool), so originals are escaped as it needs.
    """

    def __init__(self, originals: Mapping[str, str], *, quoted: bool = False) -> None:
        self._originals = originals
        self._quoted = quoted
        self._held = ""

    def push(self, piece: str) -> str:
        """Take the next piece and return what may be shown now."""
        text = self._held + piece
        start = text.rfind(OPENING)
        growing = start >= 0 and len(text) - start <= _LONGEST and _GROWING.fullmatch(text, start) is not None and not text.endswith("]")
        self._held = text[start:] if growing else ""
        return self._restored(text[:start] if growing else text)

    def finish(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return self._restored(held)

    def _restored(self, text: str) -> str:
        return str(_TOKEN.sub(self._original, text)) if OPENING in text else text

    def _original(self, match: regex.Match[str]) -> str:
        found = self._originals.get(match.group())
        if found is None:
            return str(match.group())
        return json.dumps(found, ensure_ascii=False)[1:-1] if self._quoted else found
