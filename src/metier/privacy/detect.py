"""Finds identifiers in text: rules of packs and the general ones, borders resolved, and what is found once is found everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import regex

from metier.config import load_yaml
from metier.packs.matching import Rule, applies, compile_rule, fold_width
from metier.packs.scanning import Scanner
from metier.packs.spec import Identifier
from metier.records import Span

__all__ = ["Detector", "Tagger", "detect", "detector", "occurrences", "spreads"]

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_MEANING = regex.compile(r"[\p{L}\p{N}]")
_HAN = regex.compile(r"\p{Han}")
_LATIN_NAME_PART = regex.compile(r"\p{Lu}[\p{Ll}'-]{2,}")

_MARK = regex.compile(r"\[[A-Z][A-Z0-9_]+(?::[0-9a-f]{12})?\]")
"""What masking and hashing write: the name of a kind in brackets, with or without a code."""
_PERSON = "PERSON"
_SHORTEST_NAME = 2
_SHORTEST_VALUE = 4
_SHORTEST_NUMBER = 5
_SHORTEST_UNIQUE = 8


class Tagger(Protocol):
    """Finds identifiers that no pattern describes, such as names; its spans join those of the rules before overlaps are resolved."""

    name: str
    """What the spans of this tagger say under `rule`, and what keeps two taggers apart."""

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the spans of each text, in order, with offsets in code points of that text."""
        ...


class Detector:
    """The rules for one language, compiled once, in the order in which the pack gives them, and the taggers that join them."""

    def __init__(
        self,
        identifiers: Iterable[Identifier],
        *,
        language: str | None,
        validators: Mapping[str, Callable[[str], bool]],
        taggers: Iterable[Tagger] = (),
        disfigured: bool = True,
    ) -> None:
        """Compile the rules; `disfigured` says whether values broken by a line end or misread by a scanner are looked for, too."""
        self.identifiers = tuple(identifiers)
        self.taggers = tuple(taggers)
        self.validators = validators
        self.rules: tuple[Rule, ...] = tuple(compile_rule(item, validators) for item in self.identifiers if applies(item.languages, language))
        self.scanner = Scanner(self.rules, disfigured=disfigured)
        self.by_entity: dict[str, Identifier] = {}
        for item in self.identifiers:
            self.by_entity.setdefault(item.entity, item)

    def spans(self, text: str) -> tuple[Span, ...]:
        """Return the identifiers of one text in order, without overlap. Raises PackError for a pattern that runs out of time."""
        return self._texts((text,))[0]

    def _texts(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        found = [self.scanner.spans(text) for text in texts]
        for tagger in self.taggers:
            for text, spans, tagged in zip(texts, found, tagger.tag(texts), strict=True):
                spans.extend(_outside_marks(text, tagged))
        return [_without_overlap(spans, text) for spans, text in zip(found, texts, strict=True)]

    def record(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the identifiers of all texts of one record: what is found in one place is found in every other place too."""
        first = self._texts(texts)
        if not any(first):
            return first
        values = _values(texts, first)
        again = []
        for text, spans in zip(texts, first, strict=True):
            more = [
                Span(start, end, entity, text[start:end], 1.0, "propagated")
                for value, (entity, exact) in values.items()
                for start, end in occurrences(value, text, exact=exact)
            ]
            again.append(_without_overlap([*spans, *more], text))
        return again


def _outside_marks(text: str, spans: Sequence[Span]) -> Iterable[Span]:
    """Return the spans that hold a letter or digit and do not lie in what stands for a value already.

    A tagger may take the word in `[EMAIL_ADDRESS]` for a name, and line ends between two sentences, too.
    """
    spans = [span for span in spans if _MEANING.search(text, span.start, span.end)]
    marks = [found.span() for found in _MARK.finditer(text)] if "[" in text else []
    return [span for span in spans if not any(start < span.end and span.start < end for start, end in marks)]


def _without_overlap(found: list[Span], text: str) -> tuple[Span, ...]:
    """Keep the longest of overlapping spans, then the surest; what sticks out of a loser is kept as a span of its own, so nothing leaks."""
    if len(found) < 2:
        return tuple(found)
    chosen: list[Span] = []
    waiting = sorted(found, key=lambda span: (span.end - span.start, span.score, -span.start), reverse=True)
    for span in waiting:
        pieces = [(span.start, span.end)]
        for other in chosen:
            pieces = [part for start, end in pieces for part in ((start, min(end, other.start)), (max(start, other.end), end)) if part[0] < part[1]]
            if not pieces:
                break
        for start, end in pieces:
            if _MEANING.search(text, start, end):
                whole = (start, end) == (span.start, span.end)
                chosen.append(span if whole else replace(span, start=start, end=end, text=text[start:end], rule="remainder"))
    return tuple(sorted(chosen, key=lambda span: span.start))


def _values(texts: Sequence[str], found: Sequence[tuple[Span, ...]]) -> dict[str, tuple[str, bool]]:
    """Return the values to look for in the whole record -> (entity, whether capitals count)."""
    values: dict[str, tuple[str, bool]] = {}
    for text, spans in zip(texts, found, strict=True):
        for span in spans:
            if span.type == _PERSON:
                values.update(_name_values(text, span))
            elif len(span.text) >= (_SHORTEST_NUMBER if span.text.isdigit() else _SHORTEST_VALUE):
                values.setdefault(span.text, (span.type, False))
    return values


def _name_values(text: str, span: Span) -> dict[str, tuple[str, bool]]:
    if _HAN.match(span.text):
        values = {span.text: (_PERSON, False)} if len(span.text) >= _SHORTEST_NAME else {}
        # "Zhang Wei" written with the first character of the next word is cut here, too: the border of a Chinese name is not sure.
        if len(span.text) == 3 and _HAN.match(text, span.end):
            values[span.text[:2]] = (_PERSON, False)
        return values
    parts = {part.group(): (_PERSON, True) for part in _LATIN_NAME_PART.finditer(span.text)}
    return {**parts, span.text: (_PERSON, len(span.text.split()) < 2)} if spreads(span.text) else parts


@lru_cache(maxsize=1)
def _short_words() -> frozenset[str]:
    """Return the words of two letters that stand in any text, whether or not they are somebody's name, too."""
    return frozenset(load_yaml(Path(__file__).parent / "data" / "short-words.yaml").value["words"])


def spreads(name: str) -> bool:
    """Return whether a name that was found in one place of a record is one in its other places, too: *Li* is, *If* and *He* are not."""
    return len(name) >= _SHORTEST_NAME and name not in _short_words()


def occurrences(value: str, text: str, *, exact: bool = False) -> Iterable[tuple[int, int]]:
    """Yield where `value` stands in `text` as a thing of its own: not inside a longer ASCII word or number.

    A value of 8 characters and more with a digit is nothing else by chance, so it is found inside longer ones, too. Width is folded on
    both sides; capitals of ASCII letters are folded too unless `exact`.
    """
    anywhere = len(value) >= _SHORTEST_UNIQUE and any(map(str.isdigit, value))
    needle, hay = fold_width(value), fold_width(text)
    if not exact:
        needle, hay = needle.translate(_LOWER), hay.translate(_LOWER)
    start = hay.find(needle)
    while start >= 0:
        end = start + len(needle)
        if anywhere or not (_joined(hay, start) or _joined(hay, end)):
            yield start, end
        start = hay.find(needle, start + 1)


def _joined(text: str, border: int) -> bool:
    return 0 < border < len(text) and all(char.isascii() and char.isalnum() for char in text[border - 1 : border + 1])


_DETECTORS: dict[tuple[object, ...], Detector] = {}
_MOST_DETECTORS = 64


def detector(
    identifiers: Sequence[Identifier],
    *,
    language: str | None,
    validators: Mapping[str, Callable[[str], bool]],
    taggers: Sequence[Tagger] = (),
) -> Detector:
    """Return the detector for these rules; one that was made for the very same tuple, table and taggers is taken again."""
    key = (id(identifiers), id(validators), language, *map(id, taggers))
    known = _DETECTORS.get(key)
    if known is not None and known.identifiers is identifiers and known.validators is validators and _same(known.taggers, taggers):
        return known
    made = Detector(identifiers, language=language, validators=validators, taggers=taggers)
    if made.identifiers is identifiers:
        if len(_DETECTORS) >= _MOST_DETECTORS:
            _DETECTORS.clear()
        _DETECTORS[key] = made
    return made


def _same(left: Sequence[Tagger], right: Sequence[Tagger]) -> bool:
    return len(left) == len(right) and all(one is other for one, other in zip(left, right, strict=True))


def detect(
    text: str,
    identifiers: Sequence[Identifier],
    *,
    language: str | None,
    validators: Mapping[str, Callable[[str], bool]],
    taggers: Sequence[Tagger] = (),
) -> tuple[Span, ...]:
    """Return the identifiers of one text in order, without overlap (longest first, then highest score).

    Offsets are code points of `text`. Raises PackError for a rule that does not compile or runs out of time.
    """
    return detector(identifiers, language=language, validators=validators, taggers=taggers).spans(text)
