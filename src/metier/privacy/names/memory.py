"""A tagger that remembers its latest answers, so that the texts of many records can be read together before each is asked for alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from metier.records import Span

__all__ = ["NameTagger", "Remembering", "read_ahead"]

_MOST_CHARACTERS = 2_000_000


class NameTagger(Protocol):
    """What a detector asks for names: spans of each text in order, offsets in code points."""

    name: str
    """What the manifest says of it."""

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the spans of each text in order."""
        ...


class Remembering:
    """Asks `tagger` once for each text and keeps the answers of the latest ones, `most` characters of text at most."""

    def __init__(self, tagger: NameTagger, *, most: int = _MOST_CHARACTERS) -> None:
        self.tagger, self.name, self.most = tagger, tagger.name, most
        self._known: dict[str, tuple[Span, ...]] = {}
        self._size = 0

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return what the tagger says of each text; equal texts are read once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        fresh = dict(zip(new, self.tagger.tag(new), strict=True)) if new else {}
        answers = [fresh[text] if text in fresh else self._known[text] for text in texts]
        for text, spans in fresh.items():
            self._known[text] = spans
            self._size += len(text)
        while self._size > self.most:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._size -= len(oldest)
        return answers


def read_ahead(taggers: Sequence[NameTagger], texts: Sequence[str]) -> None:
    """Let the taggers read the texts of many records at once; what is asked of them for one record afterwards is remembered.

    A neural tagger reads a batch several times as fast as it reads the same texts one by one. Give it a few hundred texts at a time.
    """
    for tagger in taggers:
        tagger.tag(texts)
