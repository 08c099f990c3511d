"""English names by lexicon and context: runs of capitalised words, read from what each word can be and from what stands around the run."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from metier.privacy.names.lexicon_en import EnglishLexicon, english_lexicon, pinyin, plain
from metier.records import Span

__all__ = ["EnglishNames"]

_PERSON = "PERSON"
_LETTER = r"[\p{L}\p{M}--\p{Han}]"
_TOKEN = regex.compile(rf"(?V1)(?!\p{{M}}){_LETTER}+(?:['\u2019\-](?!s(?!\p{{L}})){_LETTER}+)*")
_GAP = regex.compile(r" ?\.?[ \u00a0]{1,2}|\.|-")
_POSSESSIVE = regex.compile(r"['\u2019]s?(?!\p{L})")
_SENTENCE = regex.compile(r"(?:^|[.!?:;\n\"\u201c(\[]|\p{L}\d|\d)\s*\Z")
_COMMA = regex.compile(r", |,? and |,? & |, and ")
_NO_NAME_YET = ("this is ", "it's ", "i'm ", "i am ", "hey ", "by ")
"""After these an unknown word in capitals is a thing as often as a person."""
_LINE_BEFORE = regex.compile(r"(?:^|\n)[ \t>]*\Z")
_LINE_AFTER = regex.compile(r"[ ,.\t]*(?:\n|\Z)")
_SPEAKS = regex.compile(r": ?[\"\u201c]|, (?:can|could|would|will|please|you|are|do)(?!\p{L})")
_SPOKEN_TO = regex.compile(r"(?<!\p{L})(?:said|told|asked|married|calls? me|gender of|met|assistant to|thank you|thanks,?) \Z")
_CAPITAL = regex.compile(r"\p{Lu}(?<!(?<!\p{L})I(?!\p{L}))")


@dataclass(slots=True)
class _Word:
    """A token: where it stands and what it can be."""

    start: int
    end: int
    text: str
    low: str
    kind: str
    """`I` initial, `G` given name, `g` given name and word, `F` family name, `f` family name and word, `C` capitalised and unknown,
    `P` particle, `W` any other word."""


class EnglishNames:
    """People in English text, by the bundled lexicon and rules of context."""

    def __init__(self, only: Collection[str] = ()) -> None:
        """`only` keeps what these rules find (empty: all), for Latin names in text of another language."""
        self.name = "names-latin" if only else "names-en"
        self.only = frozenset(only)
        self.lexicon: EnglishLexicon = english_lexicon()

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the names in each text in order, without overlap; offsets are code points."""
        return [self._text(text) for text in texts]

    def _text(self, text: str) -> tuple[Span, ...]:
        words = [self._word(text, match) for match in _TOKEN.finditer(text)]
        lower = not _CAPITAL.search(text)
        found = list(self._spoken(text, words) if lower else self._written(text, words))
        found = self._lists(text, words, found)
        return tuple(Span(start, end, _PERSON, text[start:end], score, rule) for start, end, score, rule in found if not self.only or rule in self.only)

    def _word(self, text: str, match: regex.Match[str]) -> _Word:
        value = match.group()
        return _Word(match.start(), match.end(), value, low := plain(value), self._kind(text, match.start(), match.end(), value, low))

    def _kind(self, text: str, start: int, end: int, value: str, low: str) -> str:
        lexicon = self.lexicon
        if not value[0].isupper():
            return "P" if low in lexicon.particles else "W"
        if len(value) == 1:
            return "I"
        if low in lexicon.never or low in lexicon.things or low in lexicon.titles:
            return "W"
        common = low in lexicon.common or low in lexicon.eponyms
        if low in lexicon.given:
            return "g" if common or len(low) < 3 else "G"
        if low in lexicon.family:
            return "f" if common or len(low) < 3 else "F"
        if "-" in low:
            parts = [part for part in low.split("-") if part]
            return "F" if any(part in lexicon.given or part in lexicon.family for part in parts) and not any(part in lexicon.words for part in parts) else "W"
        if low in lexicon.words or low in lexicon.common or low in lexicon.places or low in lexicon.eponyms or (value.isupper() and len(value) < 4):
            return "W"
        return "C"

    def _written(self, text: str, words: Sequence[_Word]) -> Iterator[tuple[int, int, float, str]]:
        place = 0
        while place < len(words):
            size, score, rule = self._name(text, words, place)
            if size:
                yield words[place].start, words[place + size - 1].end, score, rule
                place += size
            else:
                place += 1

    def _name(self, text: str, words: Sequence[_Word], first: int) -> tuple[int, float, str]:
        """Return how many words from `first` on are a name, how sure that is, and by which rule; 0 words: none."""
        kind = words[first].kind
        if kind in "WP" and not (words[first].text[0].isupper() and self._titled(text, words, first)):
            return 0, 0.0, ""
        size = self._run(text, words, first)
        titled = self._titled(text, words, first)
        if titled:
            return (max(size, 1), 0.95, "title")
        while size and words[first + size - 1].kind in "P":
            size -= 1
        if not size:
            return 0, 0.0, ""
        if size == 1 and (comma := self._last_first(text, words, first)):
            return comma, 0.85, "last-first"
        size += self._suffix(text, words, first + size)
        run = [word for word in words[first : first + size] if word.low not in self.lexicon.suffixes or word.kind != "W"]
        kinds = "".join(word.kind for word in run)
        if not self._fits(text, words, first, size):
            return 0, 0.0, ""
        told = self._told(text, run[0].start)
        score, rule = self._score(text, words, first, kinds, told)
        return (size, score, rule) if score else (0, 0.0, "")

    def _run(self, text: str, words: Sequence[_Word], first: int) -> int:
        """Return how many words stand together and can belong to one name."""
        size = 1
        while first + size < len(words) and size < 6:
            left, right = words[first + size - 1], words[first + size]
            gap = text[left.end : right.start]
            if not _GAP.fullmatch(gap) or ("." in gap and left.kind != "I") or (gap == "." and right.kind != "I"):
                break
            if right.kind == "P" and not self._goes_on(words, first + size):
                break
            if right.kind == "W" or (right.kind == "I" and right.text == "I" and right.end < len(text) and text[right.end] == " "):
                break
            if right.text.isupper() != left.text.isupper() and min(len(right.text), len(left.text)) > 3 and left.kind != "P":
                break
            size += 1
        return size

    def _goes_on(self, words: Sequence[_Word], place: int) -> bool:
        """Return whether the particles from `place` on lead to a word with a capital."""
        while place < len(words) and words[place].kind == "P":
            place += 1
        return place < len(words) and words[place].text[0].isupper()

    def _suffix(self, text: str, words: Sequence[_Word], place: int) -> int:
        """Return 1 where "Jr", "III" or "MD" follows the name, else 0."""
        if place >= len(words) or words[place].low not in self.lexicon.suffixes or not words[place].text[0].isupper():
            return 0
        return int(text[words[place - 1].end : words[place].start] in {" ", ", "})

    def _titled(self, text: str, words: Sequence[_Word], first: int) -> bool:
        if not first:
            return False
        left = words[first - 1]
        gap = text[left.end : words[first].start]
        return (
            left.low in self.lexicon.titles
            and left.text[0].isupper()
            and bool(regex.fullmatch(r" ?\.? {1,2}", gap))
            and self._short_title(left, gap, words[first])
        )

    def _short_title(self, title: _Word, gap: str, word: _Word) -> bool:
        """A title that is an everyday word needs a name behind it; one that is nothing else takes any capitalised word."""
        sure = title.low in {"mr", "mrs", "ms", "dr", "prof", "miss", "messrs", "doctor", "professor", "judge"}
        return (
            word.text[0].isupper() and not (word.kind == "W" and (not sure or (word.text.isupper() and len(word.text) < 4))) and (sure or word.kind in "GgFf")
        )

    def _last_first(self, text: str, words: Sequence[_Word], first: int) -> int:
        """Return the size of "Family, Given" or "FAMILY, GIVEN M." from `first`; 0 if that is not what stands there."""
        if first + 1 >= len(words) or text[words[first].end : words[first + 1].start] != ", ":
            return 0
        left, right = words[first], words[first + 1]
        if left.kind not in "FfC" and not (left.kind in "Gg" and left.low in self.lexicon.family):
            return 0
        if (
            right.kind != "G"
            or right.low in self.lexicon.places
            or not (self._told(text, left.start) or left.text.isupper() or self._line_start(text, left.start))
        ):
            return 0
        return 1 + (2 if first + 2 < len(words) and words[first + 2].kind == "I" and text[right.end : words[first + 2].start] == " " else 1)

    def _line_start(self, text: str, place: int) -> bool:
        return place == 0 or text[place - 1] == "\n"

    def _fits(self, text: str, words: Sequence[_Word], first: int, size: int) -> bool:
        """Return whether nothing beside the run says that it is a firm, a place, an illness or a thing."""
        lexicon = self.lexicon
        last = words[first + size - 1]
        if first + size < len(words):
            following = words[first + size]
            gap = text[last.end : following.start]
            if following.low in lexicon.things and regex.fullmatch(r"['\u2019]?s?,? (?:& |and )?|-| & ", gap):
                return following.low in lexicon.everyday_things and not following.text[0].isupper()
        before = text[max(0, words[first].start - 4) : words[first].start]
        if before.endswith((" & ", "&", "@", "/", "#")):
            return False
        return not (
            first
            and words[first - 1].low in lexicon.not_after
            and words[first - 1].text[0].isupper()
            and text[words[first - 1].end : words[first].start] in {" ", ". "}
        )

    def _told(self, text: str, start: int) -> bool:
        return _announcement().search(text, max(0, start - 30), start) is not None

    def _score(self, text: str, words: Sequence[_Word], first: int, kinds: str, told: bool) -> tuple[float, str]:
        several = len(kinds.replace("P", "")) > 1
        return self._several(text, words, first, kinds, told) if several else self._single(text, words, first, kinds, told)

    def _several(self, text: str, words: Sequence[_Word], first: int, kinds: str, told: bool) -> tuple[float, str]:
        """Return how sure a run of several words is a name, and by which rule; 0: it is none."""
        word, second, last = words[first], words[first + 1], words[first + len(kinds) - 1]
        core = kinds.replace("P", "")
        sure = "G" in core or "F" in core
        if (last.text.isupper() and len(last.text) > 1 and "G" not in core and not told) or f"{word.low} {second.low}" in self.lexicon.places:
            return 0.0, ""
        rules = (
            (core[0] in "Gg" and core[-1] in "FfCGg" and (sure or (told and "C" not in core)), 0.9, "given-family"),
            (core[0] in "Gg" and core[-1] == "I" and sure, 0.85, "given-initial"),
            (core[0] == "g" and core[-1] == "C" and (told or not self._starts(text, word.start)), 0.7, "given-family"),
            (core[0] == "I" and core.strip("I") and core[-1] in "FfGgC" and (sure or told or "." in text[word.end : word.end + 2]), 0.8, "initial-family"),
            (core[-1] in "FG" and (core[0] in "FC" or (core[0] == "f" and told)), 0.75, "unknown-family"),
            (told and core[0] in "CFf" and core[-1] in "CFfGg", 0.7, "context"),
            (core[0] in "CFfg" and core[-1] in "CFfg" and all(pinyin().fullmatch(item.low) for item in (word, last)), 0.7, "pinyin"),
            (core in {"CC", "CIC", "CCC"} and not word.text.isupper() and self._unknown(text, words, first, len(kinds)), 0.6, "unknown"),
        )
        return next(((score, rule) for holds, score, rule in rules if holds), (0.0, ""))

    def _unknown(self, text: str, words: Sequence[_Word], first: int, size: int) -> bool:
        """Return whether capitalised words that the lexicon does not know stand where a name does."""
        return not self._starts(text, words[first].start) or self._acts(text, words, first + size) or self._alone(text, words, first, size)

    def _single(self, text: str, words: Sequence[_Word], first: int, kinds: str, told: bool) -> tuple[float, str]:
        """Return how sure a word alone is a name, and by which rule; 0: it is none."""
        word = words[first]
        before = text[max(0, word.start - 8) : word.start].lower()
        if word.low in self.lexicon.eponyms:
            return 0.0, ""
        if word.low in self.lexicon.places:
            return (0.6, "context") if told and kinds in "Gg" and not before.endswith("by ") else (0.0, "")
        acts = self._acts(text, words, first + 1)
        short = word.text.isupper() and len(word.text) < 5  # an abbreviation more often than a name: ED, a type VI
        rules = (
            (kinds == "G" and not short, 0.7, "given"),
            (told and kinds in "gfFC" and not (kinds == "C" and (before.endswith(_NO_NAME_YET) or self._code(word.text))), 0.65, "context"),
            (kinds == "F" and (acts or _POSSESSIVE.match(text, word.end)), 0.6, "family"),
            (kinds in "FC" and self._speaks(text, words, first), 0.6, "speaker"),
            (kinds == "g" and acts and not (short or self._starts(text, word.start)), 0.6, "given"),
        )
        return next(((score, rule) for holds, score, rule in rules if holds), (0.0, ""))

    @staticmethod
    def _code(text: str) -> bool:
        """Return whether a word looks like an abbreviation: capitals inside, and short."""
        return len(text) < 6 and any(map(str.isupper, text[1:]))

    def _acts(self, text: str, words: Sequence[_Word], place: int) -> bool:
        return place < len(words) and words[place].low in self.lexicon.verbs and text[words[place - 1].end : words[place].start] == " "

    def _alone(self, text: str, words: Sequence[_Word], first: int, size: int) -> bool:
        """Return whether the words are all that stands in their line, as under a letter."""
        start, end = words[first].start, words[first + size - 1].end
        return _LINE_BEFORE.search(text, max(0, start - 40), start) is not None and _LINE_AFTER.match(text, end) is not None

    def _speaks(self, text: str, words: Sequence[_Word], first: int) -> bool:
        """Return whether an unknown word is a person by what it does: speaks, is spoken to, or lives somewhere."""
        word = words[first]
        if _SPEAKS.match(text, word.end):
            return True
        following = words[first + 1].low if first + 1 < len(words) and text[word.end : words[first + 1].start] == " " else ""
        after = words[first + 2].low if following and first + 2 < len(words) else ""
        if following in {"spent", "began", "said", "says", "lives", "lived", "told", "married", "died", "wrote", "moved", "loves"}:
            return True
        return (following == "is" and after == "from") or _SPOKEN_TO.search(text, max(0, word.start - 16), word.start) is not None

    def _lists(self, text: str, words: Sequence[_Word], found: list[tuple[int, int, float, str]]) -> list[tuple[int, int, float, str]]:
        """Return the names together with their neighbours in a list: "A, B and C", where one is known and the others can be names."""
        if not found:
            return found
        taken = {start for start, _, _, _ in found}
        ends = {end for _, end, _, _ in found}
        kinds = "GgFfC" if any(word.text[0].isupper() for word in words) else ""
        pairs = [pair for pair in itertools.pairwise(words) if _COMMA.fullmatch(text, pair[0].end, pair[1].start)]
        for pair in [*pairs, *reversed(pairs)]:
            left, right = pair
            if (left.end in ends) == (right.start in taken):
                continue
            new = right if left.end in ends else left
            possible = new.kind in kinds if kinds else (new.low in self.lexicon.given and new.low not in self.lexicon.common)
            if possible and new.low not in self.lexicon.places:
                found.append((new.start, new.end, 0.6, "list"))
                taken.add(new.start)
                ends.add(new.end)
        return sorted(found)

    def _starts(self, text: str, start: int) -> bool:
        return _SENTENCE.search(text, max(0, start - 4), start) is not None

    def _spoken(self, text: str, words: Sequence[_Word]) -> Iterator[tuple[int, int, float, str]]:
        """Yield names in a transcript without capitals: after a title, after a greeting, and given names that are no other word."""
        lexicon = self.lexicon
        for place, word in enumerate(words):
            if len(word.low) < 2 or word.low in lexicon.never:
                continue
            left = words[place - 1] if place else word
            gap = text[left.end : word.start] if place else ""
            name = word.low in lexicon.given or word.low in lexicon.family
            if left.low in {"mr", "mrs", "ms", "dr", "prof", "miss", "doctor"} and regex.fullmatch(r" ?\.? +", gap):
                short = left.low in {"mr", "mrs", "ms", "dr", "prof"}
                if (short and word.low not in lexicon.words) or (name and word.low not in lexicon.common):
                    yield word.start, word.end, 0.9, "title"
                continue
            if (
                not name
                or word.low in lexicon.common
                or word.low in lexicon.words
                or len(word.low) < 3
                or word.low in lexicon.places
                or word.low in lexicon.eponyms
            ):
                continue
            following = words[place + 1] if place + 1 < len(words) and text[word.end : words[place + 1].start] == " " else None
            if word.low in lexicon.given and following is not None and self._family(following):
                yield word.start, following.end, 0.75, "given-family"
            elif word.low in lexicon.given and len(word.low) > 3:
                yield word.start, word.end, 0.6, "given"

    def _family(self, word: _Word) -> bool:
        lexicon = self.lexicon
        return word.low in lexicon.family and word.low not in lexicon.common and word.low not in lexicon.words and word.low not in lexicon.never


@lru_cache(maxsize=1)
def _announcement() -> regex.Pattern[str]:
    words = "|".join(f"(?:{word})" for word in english_lexicon().announce)
    return regex.compile(rf"(?i)(?<!\p{{L}})(?:{words})[ \t]*[:,=\-]?[ \t]*[\"\u201c(\[]?\Z")
