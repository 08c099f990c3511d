"""Concept mentions in text: longest match over a pack's lexicon, with negation scope, in Chinese and English."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import regex

from metier.config import Settings, load_yaml, parse
from metier.packs.spec import Term

__all__ = ["Cues", "Lexicon", "Mention", "TermCounts", "count_terms", "load_cues"]

_PIECE = regex.compile(
    r"(?P<han>\p{Han})|(?P<word>\d+(?:\.\d+)?|[[\p{L}\p{M}\p{N}]--[\p{Han}]]+)|(?P<stop>[.;:!?\n\u3002\uff1b\uff1a\uff01\uff1f\uff0c])", regex.V1
)
_IRREGULAR = ("ss", "us", "is")


class Cues(Settings):
    """Words that negate a mention; the file lies beside this module, one list a role."""

    before: tuple[str, ...]
    """Negate what follows them in the same clause."""
    after: tuple[str, ...]
    """Negate what stands before them in the same clause."""
    not_negation: tuple[str, ...]
    """Look like a cue and are none."""
    ends_scope: tuple[str, ...]
    """End the reach of a cue, as the end of a sentence does."""


def load_cues() -> Cues:
    """Return the negation cues that ship with Metier (NegEx's idea: Chapman et al., J Biomed Inform 34, 2001)."""
    return parse(load_yaml(Path(__file__).parent / "data" / "negation.yaml"), Cues)


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention: the codes its name may stand for, where (token offsets) and whether it is negated."""

    codes: frozenset[str]
    start: int
    end: int
    negated: bool


def _fold(word: str) -> str:
    """Return an English word without its plural ending; short words and -ss, -us, -is stay."""
    if len(word) <= 3 or word.endswith(_IRREGULAR):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    return word.removesuffix("s")


def _pieces(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _PIECE.finditer(text.lower()):
        kind = match.lastgroup or ""
        found.append((kind, _fold(match.group()) if kind == "word" else match.group()))
    return found


class _Phrases:
    """Phrases by their first token, longest first."""

    def __init__(self, phrases: Iterable[tuple[str, str]]) -> None:
        table: dict[tuple[str, ...], set[str]] = {}
        for phrase, value in phrases:
            if key := tuple(token for kind, token in _pieces(phrase) if kind != "stop"):
                table.setdefault(key, set()).add(value)
        self._by_first: dict[str, list[tuple[tuple[str, ...], frozenset[str]]]] = {}
        for key in sorted(table, key=len, reverse=True):
            self._by_first.setdefault(key[0], []).append((key, frozenset(table[key])))

    def find(self, stream: Sequence[str]) -> list[tuple[int, int, frozenset[str]]]:
        """Return (start, end, values) of every phrase, leftmost first, longest first, without overlaps."""
        found, position = [], 0
        while position < len(stream):
            for key, values in self._by_first.get(stream[position], ()):
                if tuple(stream[position : position + len(key)]) == key:
                    found.append((position, position + len(key), values))
                    position += len(key)
                    break
            else:
                position += 1
        return found


class Lexicon:
    """Finds the concepts of a lexicon in text.

    A name matches token by token: Han characters one by one, other words with their plural folded; the longest name wins.
    A cue negates mentions of its clause up to `reach_words` words or `reach_characters` Han characters away. The word reach
    is NegEx's (5 words); 12 characters is the length of five Chinese words of two characters and their connectives.
    """

    def __init__(self, terms: Iterable[Term], cues: Cues, *, reach_words: int = 5, reach_characters: int = 12) -> None:
        names = [(name, term.code) for term in terms for name in (*term.preferred.values(), *term.variants)]
        self._names = _Phrases(names)
        roles = ("before", "after", "not_negation", "ends_scope")
        self._cues = _Phrases((cue, role) for role in roles for cue in getattr(cues, role))
        self._words, self._characters = reach_words, reach_characters

    def mentions(self, text: str) -> list[Mention]:
        """Return every mention in a text, in order."""
        pieces = _pieces(text)
        stream = [token for _, token in pieces]
        found = self._names.find(stream)
        inside = {index for start, end, _ in found for index in range(start, end)}
        cues = [(start, end, values) for start, end, values in self._cues.find(stream) if start not in inside]
        walls = {index for index, (kind, _) in enumerate(pieces) if kind == "stop"}
        walls |= {start for start, _, values in cues if "ends_scope" in values}
        before = [end for _, end, values in cues if "before" in values]
        after = [start for start, _, values in cues if "after" in values]
        kinds = [kind for kind, _ in pieces]
        mentions = []
        for start, end, codes in found:
            negated = any(self._reaches(cue, start, kinds, walls) for cue in before) or any(self._reaches(end, cue, kinds, walls) for cue in after)
            mentions.append(Mention(codes, start, end, negated))
        return mentions

    def _reaches(self, left: int, right: int, kinds: Sequence[str], walls: set[int]) -> bool:
        if left > right or any(index in walls for index in range(left, right)):
            return False
        words = sum(kinds[index] == "word" for index in range(left, right))
        return words <= self._words and right - left - words <= self._characters


@dataclass(frozen=True, slots=True)
class TermCounts:
    """Mentions in an answer and how many are supported; concepts of the reference and how many the answer has."""

    mentions: int
    supported: int
    gold: int
    found: int


def count_terms(lexicon: Lexicon, answer: str, reference: str, context: str) -> TermCounts:
    """Compare the asserted mentions of an answer with those of the reference; the prompt (`context`) supports too."""
    said = [mention.codes for mention in lexicon.mentions(answer) if not mention.negated]
    gold = [mention.codes for mention in lexicon.mentions(reference) if not mention.negated]
    wanted = set(gold)
    allowed = frozenset().union(*gold, *(mention.codes for mention in lexicon.mentions(context)))
    spoken = frozenset().union(*said)
    return TermCounts(len(said), sum(bool(codes & allowed) for codes in said), len(wanted), sum(bool(codes & spoken) for codes in wanted))
