"""Chinese names by rules: surname, given-name characters and what stands around them; joined with a neural tagger where there is one.

Decided for half-anonymised forms: a surname with what stands for the rest (a "certain somebody", a letter, a cross, a number) still tells
the surname and who is who, so it is a name here and is replaced as one. Placeholders without a surname ("A", the first heavenly stem) are not.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import regex

from metier.packs.matching import fold_width
from metier.privacy.names.lexicon_zh import ChineseLexicon, chinese_lexicon
from metier.privacy.names.patterns_zh import CERTAIN, Patterns, chinese_patterns
from metier.privacy.names.places import DOUBT, places
from metier.records import Span

__all__ = ["ChineseNames"]

_PERSON = "PERSON"
_HAN = regex.compile(r"\p{Han}")
_BEFORE = 16
"""How many characters before a name are looked at."""
_SETTLED = 0.9
"""Score from which a rule's name is taken without asking a neural tagger: something announces it or it has a form of its own."""
_INTERPUNCT = "\u00b7\u2022\u30fb\uff0e"


class _Neural(Protocol):
    @property
    def entities(self) -> Mapping[str, str]: ...

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]: ...


class Found(NamedTuple):
    """A stretch that may be a name, how sure it is and which rule says so."""

    start: int
    end: int
    score: float
    rule: str


class ChineseNames:
    """People in Chinese text. `neural` is a tagger whose people are taken after a look at what they are made of; None: rules alone.

    A neural tagger that looks for people only is asked about `reach` characters around the places where the rules leave a doubt; one that
    looks for more reads everything.
    """

    def __init__(self, neural: _Neural | None = None, *, alone: int = 2, reach: int = 14) -> None:
        self.neural = neural
        self.name = "names-zh" if neural is not None else "names-zh:rules"
        self.alone, self.reach = alone, reach
        self.lexicon: ChineseLexicon = chinese_lexicon()
        self.patterns: Patterns = chinese_patterns()

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the names in each text in order, without overlap; offsets are code points. Other entities of the neural tagger are passed on."""
        folded = [fold_width(text) for text in texts]
        where = places(folded)
        ruled = [list(self._by_rule(text, here)) for text, here in zip(folded, where, strict=True)]
        said = self._said(texts, [self._windows(*item) for item in zip(texts, ruled, where, strict=True)])
        return [self._text(*item) for item in zip(texts, folded, ruled, said, strict=True)]

    def _windows(self, text: str, ruled: Sequence[Found], where: Mapping[str, Sequence[int]]) -> list[tuple[int, int]]:
        """Return the stretches that the neural tagger reads: what lies around places of doubt that no rule has settled."""
        if self.neural is None:
            return []
        if set(self.neural.entities.values()) != {_PERSON}:
            return [(0, len(text))]
        settled = {place for item in ruled if item.score >= _SETTLED for place in range(item.start, item.end)}
        out: list[tuple[int, int]] = []
        for place in where.get(DOUBT, ()):
            if place not in settled:
                start, end = max(0, place - self.reach), min(len(text), place + self.reach)
                if out and start <= out[-1][1]:
                    start = out.pop()[0]
                out.append((start, end))
        return out

    def _said(self, texts: Sequence[str], windows: Sequence[Sequence[tuple[int, int]]]) -> list[list[Span]]:
        """Return what the neural tagger says of the windows of each text, with offsets of the text; equal windows are read once.

        What touches the edge of a window within the text may be half of a name, and its place left no doubt: it is passed over.
        """
        said: list[list[Span]] = [[] for _ in texts]
        pieces = dict.fromkeys(text[start:end] for text, here in zip(texts, windows, strict=True) for start, end in here)
        if self.neural is None or not pieces:
            return said
        spans_of = dict(zip(pieces, self.neural.tag(list(pieces)), strict=True))
        for spans, text, here in zip(said, texts, windows, strict=True):
            for start, end in here:
                spans += [
                    replace(span, start=start + span.start, end=start + span.end)
                    for span in spans_of[text[start:end]]
                    if (span.start or not start) and (start + span.end < end or end == len(text))
                ]
        return said

    def _text(self, text: str, folded: str, ruled: Sequence[Found], said: Sequence[Span]) -> tuple[Span, ...]:
        found = [kept for span in said if span.type == _PERSON and (kept := self._checked(folded, span)) is not None]
        found += ruled
        if found and _HAN.search(folded):
            found = self._lists(folded, _longest(found))
            found.extend(self._again(folded, found))
        names = [Span(item.start, item.end, _PERSON, text[item.start : item.end], item.score, item.rule) for item in _longest(found)]
        others = [span for span in said if span.type != _PERSON]
        return tuple(sorted([*names, *others], key=lambda span: (span.start, span.end)))

    def _checked(self, text: str, span: Span) -> Found | None:
        """Return the neural tagger's name without title or punctuation, or None where it cannot be one."""
        lexicon = self.lexicon
        start, end = span.start, span.end
        title = self.patterns.title_end.search(text, start, end)
        if title is not None and title.start() > start:
            end = title.start()
        value = text[start:end]
        if not _HAN.search(value) and len(value) < 2:
            return None
        told = title is not None or self.patterns.before.search(text, max(0, start - _BEFORE), start) is not None
        surname = lexicon.surname(text, start)
        if value in lexicon.not_names or (not told and (value in lexicon.words or self.patterns.not_followed.match(text, end))):
            return None
        if self.patterns.hidden.match(value) or any(mark in value for mark in _INTERPUNCT) or not _HAN.search(value):
            return Found(start, end, span.score, span.rule)
        if len(value) == 1:
            return Found(start, end, span.score, span.rule) if surname and title is not None else None
        if told or surname or self.patterns.nickname.match(value) or self._given(value):
            return Found(*self._whole(text, start, end, surname), span.score, span.rule)
        return None

    def _whole(self, text: str, start: int, end: int, surname: int) -> tuple[int, int]:
        """Return the stretch with a surname before it or a last character behind it that the tagger left out."""
        lexicon = self.lexicon
        if start and lexicon.surname(text, start - 1) == 2:
            return start - 1, end
        if not surname and end - start == 2 and start and text[start - 1] in lexicon.plain:
            return start - 1, end
        if surname and end - start == surname + 1 and end < len(text) and lexicon.likely(text[end]) >= 1 and self._second(text, end):
            return start, end + 1
        return start, end

    def _given(self, value: str) -> bool:
        """Return whether a stretch without a surname is a given name, or a foreign name written in Chinese."""
        likely = sum(map(self.lexicon.likely, value)) >= 2.5 * len(value)
        return likely or (len(value) > 2 and all(char in self.lexicon.transliteration for char in value))

    def _by_rule(self, text: str, where: Mapping[str, Sequence[int]]) -> Iterator[Found]:
        """Yield what the patterns find at the places where they may begin; a text without a Chinese character has none."""
        patterns = self.patterns
        if not where or not _HAN.search(text):
            return
        for rule, pattern in patterns.whole:
            for match in pattern.finditer(text) if rule in where else ():
                yield Found(match.start("name"), match.end("name"), 0.95, rule)
        for match in _matches(patterns.half, text, where.get("half", ())):
            end = self._half(text, match)
            if end is not None:
                yield Found(match.start(), end, 0.95, "hidden")
        for match in patterns.foreign.finditer(text) if "foreign" in where else ():
            yield Found(match.start("name"), match.end("name"), 0.9, "interpunct")
        yield from self._title(text, where.get("titled", ()))
        for match in _matches(patterns.announced, text, where.get("announced", ())):
            found = self._name_at(text, match.end(), least=-1)
            if found is not None:
                yield Found(match.end(), found, 0.9, "context")
        yield from self._free(text, where.get("candidate", ()))

    def _title(self, text: str, where: Sequence[int]) -> Iterator[Found]:
        """Yield names before a title; as in a search from the left, none begins within the one before it."""
        taken = 0
        for match in _matches(self.patterns.titled, text, where):
            if match.start() >= taken:
                taken = match.end()
                if match.group("name") + match.group("title") not in self.lexicon.not_titled and self._titled(text, match):
                    yield Found(match.start("name"), match.end("name"), 0.9, "title")

    def _half(self, text: str, match: regex.Match[str]) -> int | None:
        """Return where a half-anonymised name ends, one character later where a given name goes on; None for a place, a date or a number."""
        start, end = int(match.start("name")), int(match.end("name"))
        following = text[end : end + 1]
        if following in self.lexicon.measures and not match.group("name").endswith(CERTAIN):
            return None
        if text[start] in self.lexicon.doubtful and not self.patterns.lead.search(text, max(0, start - _BEFORE), start):
            return None
        if end - start == 2 and _HAN.match(following) and self.lexicon.likely(following) >= 1 and self._second(text, end):
            return end + 1
        return end

    def _titled(self, text: str, match: regex.Match[str]) -> bool:
        start = match.start("name")
        size = self.lexicon.surname(text, start)
        given = text[start + size : match.end("name")]
        if any(self.lexicon.likely(char) < 0 or char in self.lexicon.after for char in given):
            return False
        if given and self.lexicon.is_word(text, start, match.end("name")):
            return False
        return bool(given and text[start] in self.lexicon.plain) or self.patterns.title_lead.search(text, max(0, start - _BEFORE), start) is not None

    def _name_at(self, text: str, start: int, *, least: int) -> int | None:
        """Return where a name that begins at `start` ends: a surname and one or two characters. None if there is no name.

        `least` is the score that the characters behind the surname need; a surname that is a common word, too, needs two more.
        """
        lexicon = self.lexicon
        size = lexicon.surname(text, start)
        first = start + size
        if not size or not _HAN.match(text, first):
            return None
        # A character that often follows a name may begin a given name, too, where a role or a label says that a name comes.
        if text[first] in lexicon.after and not (least < 0 and lexicon.likely(text[first]) >= 2 and text[start] not in lexicon.doubtful):
            return None
        doubtful = size == 1 and text[start] in lexicon.doubtful
        end = first + 1
        if self._second(text, end):
            end += 1
        score = sum(lexicon.likely(char) for char in text[first:end])
        if (
            score < least + (2 if doubtful else 0)
            or (size == 1 and lexicon.is_word(text, start, end))
            or (doubtful and text[first : first + 2] in lexicon.words)
        ):
            return None
        return end

    def _second(self, text: str, place: int) -> bool:
        """Return whether the character at `place` is the second of a given name, and not the first of the next word."""
        lexicon = self.lexicon
        if not _HAN.match(text, place):
            return False
        score = float(lexicon.likely(text[place]))
        if text[place] in lexicon.after:
            score -= 3
        following = text[place + 1 : place + 2]
        if text[place : place + 2] in lexicon.words and following not in lexicon.after:
            score -= 2.5
        if not _HAN.match(following) or following in lexicon.after:
            score += 1.5
        elif text[place + 1 : place + 3] in lexicon.words and text[place : place + 2] not in lexicon.words:
            score += 2
        return score > 0

    def _free(self, text: str, where: Sequence[int]) -> Iterator[Found]:
        """Yield names that nothing announces: a plain surname after a border, given-name characters, and a border behind them."""
        for match in _matches(self.patterns.candidate, text, where):
            start = match.start()
            end = self._name_at(text, start, least=self.alone)
            place = end is not None and (text[end - 1] in self.lexicon.measures or self.patterns.not_followed.match(text, end) is not None)
            if end is not None and not place and self._border(text, end):
                yield Found(start, end, 0.6, "characters")

    def _border(self, text: str, end: int) -> bool:
        """Return whether a word ends at `end`: no Chinese character follows, or one that follows names, or a common word."""
        return not _HAN.match(text, end) or text[end] in self.lexicon.after or text[end : end + 2] in self.lexicon.words

    def _lists(self, text: str, found: Sequence[Found]) -> list[Found]:
        """Return the names together with their neighbours in a list: "A, B and C" where one of them is known."""
        out = list(found)
        waiting = list(found)
        taken = {item.start for item in found} | {item.end for item in found}
        while waiting:
            item = waiting.pop()
            for start, end in (self._after_comma(text, item.end), self._before_comma(text, item.start)):
                if start < end and start not in taken and end not in taken:
                    new = Found(start, end, 0.8, "list")
                    taken |= {start, end}
                    out.append(new)
                    waiting.append(new)
        return out

    def _after_comma(self, text: str, place: int) -> tuple[int, int]:
        comma = self.patterns.comma.match(text, place)
        end = self._name_at(text, comma.end(), least=0) if comma is not None else None
        return (comma.end(), end) if comma is not None and end is not None else (0, 0)

    def _before_comma(self, text: str, place: int) -> tuple[int, int]:
        comma = self.patterns.comma_before.search(text, max(0, place - 2), place)
        if comma is not None:
            for size in (4, 3, 2):
                start = comma.start() - size
                if start >= 0 and self._name_at(text, start, least=0) == comma.start() and (size < 4 or self.lexicon.surname(text, start) == 2):
                    return start, comma.start()
        return 0, 0

    def _again(self, text: str, found: Sequence[Found]) -> Iterator[Found]:
        """Yield where a full name that was found stands once more."""
        values = {text[item.start : item.end] for item in found if item.end - item.start > 2}
        if values:
            for match in regex.finditer(r"\L<names>", text, names=values):
                yield Found(match.start(), match.end(), 0.8, "again")


def _matches(pattern: regex.Pattern[str], text: str, where: Sequence[int]) -> Iterator[regex.Match[str]]:
    """Yield what the pattern finds at some places: the same as a search for overlapping matches, if no place where it can begin is missing."""
    for place in where:
        match = pattern.match(text, place)
        if match is not None:
            yield match


def _longest(found: Sequence[Found]) -> list[Found]:
    """Return the stretches without overlap: of two that share characters the surer one stays, then the longer, then the first."""
    chosen: list[Found] = []
    for item in sorted(found, key=lambda item: (-item.score, item.start - item.end, item.start)):
        place = bisect.bisect_left(chosen, (item.start,))
        after = place == len(chosen) or item.end <= chosen[place].start
        if after and (place == 0 or chosen[place - 1].end <= item.start):
            chosen.insert(place, item)
    return chosen
