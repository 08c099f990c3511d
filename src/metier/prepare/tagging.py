"""Taggers asked about many texts at once: a model reads a chunk's texts together many times quicker than one record after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from metier.privacy.names import NamesSettings, NameTagger, taggers_for
from metier.records import Span

__all__ = ["Remembered", "remembered"]


class Remembered:
    """A tagger that remembers what it said of a chunk's texts."""

    def __init__(self, tagger: NameTagger) -> None:
        self.name = tagger.name
        self._tagger = tagger
        self._known: dict[str, tuple[Span, ...]] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Forget the last chunk's texts and ask about these."""
        asked = list(dict.fromkeys(texts))
        self._known = {}
        self._known = dict(zip(asked, self._tagger.tag(asked), strict=True))

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the spans of each text; what was not learnt is asked now."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        found = dict(zip(new, self._tagger.tag(new), strict=True)) if new else {}
        return [self._known[text] if text in self._known else found[text] for text in texts]


_MADE: dict[int, tuple[NameTagger, Remembered]] = {}


def remembered(language: str | None, settings: NamesSettings, root: Path) -> tuple[Remembered, ...]:
    """Return the taggers for a language, the same objects each time within a process: detectors are kept by them."""
    made = []
    for tagger in taggers_for(language, settings, root=root):
        if id(tagger) not in _MADE or _MADE[id(tagger)][0] is not tagger:
            _MADE[id(tagger)] = (tagger, Remembered(tagger))
        made.append(_MADE[id(tagger)][1])
    return tuple(made)
