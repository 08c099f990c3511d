"""A lexicon made ready for search: an Aho-Corasick automaton over all names (Aho and Corasick, Commun. ACM 18, 1975)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from metier.config import load_yaml
from metier.errors import MissingExtra
from metier.packs.matching import fold_width
from metier.packs.spec import Term

__all__ = ["Concept", "Lexicon", "Match", "compile_lexicon", "fold"]

_ABBREVIATION = regex.compile(r"(?=.*[A-Z].*[A-Z0-9])[A-Z][A-Za-z0-9&/-]{1,7}")


@dataclass(frozen=True, slots=True)
class Concept:
    """What a name stands for: its code, the system of the code and the preferred term by language."""

    code: str
    system: str
    preferred: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Name:
    """One name, folded: what it may stand for (nothing: a stretch to pass over), and which of its ends need a border."""

    length: int
    concepts: tuple[Concept, ...]
    left: bool
    right: bool
    abbreviation: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A name in a text, by code points; several concepts mean that the name is ambiguous."""

    start: int
    end: int
    concepts: tuple[Concept, ...]
    abbreviation: bool = False


def fold(text: str) -> str:
    """Return `text` in lower case and half width with the same number of code points, so that offsets hold in both."""
    text = fold_width(text)
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _joins(character: str) -> bool:
    """Return whether a character goes on with a Latin word or a number: letters and digits of scripts that write blanks."""
    return character.isalnum() and not "\u2e80" <= character <= "\ufaff" and character < "\U00020000"


class Lexicon:
    """Finds names: the leftmost first, of those the longest; names within a longer one are not found again.

    A name that begins or ends with a Latin letter or a digit needs a border there, which a Han letter is; a plural ending
    belongs to the name. Han names have no borders: the longest wins, and the stretches of `data/ignore.yaml` are passed over.
    """

    def __init__(self, names: Mapping[str, _Name]) -> None:
        self.size = sum(bool(name.concepts) for name in names.values())
        self._names = list(names.values())
        self._automaton = _automaton(list(names)) if names else None

    def matches(self, text: str, folded: str | None = None) -> list[Match]:
        """Return the names in a text, in order and without overlaps. `folded` is `fold(text)` where the caller has it already."""
        if self._automaton is None:
            return []
        folded = fold(text) if folded is None else folded
        found = sorted(self._found(folded))
        matches, free = [], 0
        for start, negative, index in found:
            if start >= free:
                name, free = self._names[index], -negative
                if name.concepts:
                    matches.append(Match(start, free, name.concepts, name.abbreviation != "" and text[start : start + name.length] == name.abbreviation))
        return matches

    def _found(self, folded: str) -> Iterator[tuple[int, int, int]]:
        """Yield start, the negative of the end and the index of every name that stands between the borders it needs."""
        names, size = self._names, len(folded)
        assert self._automaton is not None
        raw = folded.encode("utf-8", "surrogatepass")
        plain = len(raw) == size
        done = end_of_done = 0
        for last, index in self._automaton.iter(folded if plain else raw.decode("latin-1")):
            name = names[index]
            end = last + 1
            if not plain:
                # hits come in the order of their ends, so that every byte is decoded once
                end_of_done += len(raw[done : last + 1].decode("utf-8", "surrogatepass"))
                done, end = last + 1, end_of_done
            start = end - name.length
            if name.left and start and _joins(folded[start - 1]):
                continue
            if name.right and end < size and _joins(folded[end]):
                if folded[end] != "s" or (end + 1 < size and _joins(folded[end + 1])) or folded[end - 1] == "s" or name.length < 4:
                    continue
                end += 1
            yield start, -end, index


def _as_bytes(text: str) -> str:
    """Return the bytes of a text in UTF-8 as characters.

    A node of the automaton looks through its branches one by one: with Han letters the root has thousands of them, with bytes
    at most 256, which is ten times as fast.
    """
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _automaton(names: Sequence[str]) -> Any:
    try:
        import ahocorasick
    except ImportError:
        raise MissingExtra("pyahocorasick", "data", "looking for the terms of a lexicon") from None
    automaton = ahocorasick.Automaton()
    for index, name in enumerate(names):
        automaton.add_word(_as_bytes(name), index)
    automaton.make_automaton()
    return automaton


@lru_cache(maxsize=1)
def _ignored() -> tuple[str, ...]:
    return tuple(load_yaml(Path(__file__).parent / "data" / "ignore.yaml").value["ignore"])


def compile_lexicon(layers: Iterable[Iterable[Term]], *, ignore: Sequence[str] | None = None) -> Lexicon:
    """Return a lexicon of several layers, the one that wins first (the user's, the pack's, a classification's).

    A name that a layer gives to several codes is ambiguous in it; a later layer's meaning of a known name is left out. `ignore`
    are stretches that hold no name (default: the shipped list). Raises MissingExtra if pyahocorasick is not installed.
    """
    names: dict[str, _Name] = {}
    for stretch in _ignored() if ignore is None else ignore:
        names[fold(stretch)] = _Name(len(stretch), (), left=False, right=False)
    for layer in layers:
        mine: dict[str, list[tuple[Concept, str]]] = {}
        for term in layer:
            concept = Concept(term.code, term.system, term.preferred)
            for name in dict.fromkeys((*term.preferred.values(), *term.variants)):
                if (key := fold(name).strip()) and key not in names:
                    mine.setdefault(key, []).append((concept, name.strip()))
        for key, meanings in mine.items():
            concepts = tuple({(concept.system, concept.code): concept for concept, _ in meanings}.values())
            written = meanings[0][1]
            short = written if _ABBREVIATION.fullmatch(written) and written not in concepts[0].preferred.values() else ""
            names[key] = _Name(len(key), concepts, left=_joins(key[0]), right=_joins(key[-1]), abbreviation=short)
    return Lexicon(names)
