"""The tables behind Chinese names: surnames, characters of given names, words that are none, and what stands around a name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from metier.config import load_yaml

__all__ = ["RARE", "ChineseLexicon", "chinese_lexicon"]

_DATA = Path(__file__).parent / "data"
RARE = 1
"""Score of a character that the table does not hold: too rare in running text to be known, and rare characters like to stand in names."""

_LIKED = 2
"""Least score of a character that `given` lists."""


@dataclass(frozen=True, slots=True)
class ChineseLexicon:
    """`data/zh.yaml`, `data/zh_given.txt` and `data/zh_words.txt` in memory."""

    compound: tuple[str, ...]
    compound_first: frozenset[str]
    plain: frozenset[str]
    doubtful: frozenset[str]
    given: dict[str, int]
    words: frozenset[str]
    not_names: frozenset[str]
    not_titled: frozenset[str]
    ordinary: frozenset[str]
    ordinary_surnames: frozenset[str]
    after: frozenset[str]
    transliteration: frozenset[str]
    measures: frozenset[str]
    lists: dict[str, tuple[str, ...]]

    def likely(self, char: str) -> int:
        """Return how much likelier a character stands in a given name than in other text: the natural logarithm, rounded, -4 to 5."""
        return self.given.get(char, RARE)

    def surname(self, text: str, start: int) -> int:
        """Return the length of the surname that `text` has at `start`; 0 if there is none."""
        char = text[start : start + 1]
        if char in self.compound_first and text.startswith(self.compound, start):
            return next(len(name) for name in self.compound if text.startswith(name, start))
        return int(char in self.plain or char in self.doubtful)

    def is_word(self, text: str, start: int, end: int) -> bool:
        """Return whether a word that is no name begins at `start`: the stretch itself or a longer one with the same beginning."""
        return any(text[start:stop] in self.not_names for stop in range(start + 2, min(len(text), end + 2) + 1)) or any(
            text[start:stop] in self.words for stop in range(start + 2, min(len(text), end + 1) + 1)
        )


@lru_cache(maxsize=1)
def chinese_lexicon() -> ChineseLexicon:
    """Return the tables, read once a process."""
    data = load_yaml(_DATA / "zh.yaml").value
    given: dict[str, int] = {}
    for line in (_DATA / "zh_given.txt").read_text(encoding="utf-8").splitlines():
        score, _, chars = line.partition(" ")
        given.update(dict.fromkeys(chars, int(score)))
    for char in data["given"]:
        given[char] = max(_LIKED, given.get(char, RARE))
    lists = {
        name: tuple(sorted(set(data[name].split()), key=lambda word: (-len(word), word)))
        for name in ("roles", "labels", "alias", "titles", "title_leads", "leads", "not_followed", "pinyin_surnames", "pinyin_syllables")
    }
    compound = tuple(sorted(data["compound_surnames"].split(), key=lambda name: (-len(name), name)))
    return ChineseLexicon(
        compound=compound,
        compound_first=frozenset(name[0] for name in compound),
        plain=frozenset(data["surnames"]) - frozenset(data["doubtful_surnames"]),
        doubtful=frozenset(data["doubtful_surnames"]),
        given=given,
        words=frozenset((_DATA / "zh_words.txt").read_text(encoding="utf-8").split()),
        not_names=frozenset(data["not_names"].split()),
        not_titled=frozenset(data["not_titled"].split()),
        ordinary=frozenset(data["ordinary"].split()),
        ordinary_surnames=frozenset(data["ordinary_surnames"]),
        after=frozenset(data["after"]),
        transliteration=frozenset(data["transliteration"]),
        measures=frozenset(data["measures"].replace(" ", "")),
        lists=lists,
    )
