"""The tables behind English names: given and family names, words that are names too, and what stands around a name."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import load_yaml

__all__ = ["EnglishLexicon", "english_lexicon", "plain"]

_DATA = Path(__file__).parent / "data"
_LETTERS = str.maketrans("\u00f8\u0142\u0111\u0131\u2019", "oldi'")
_PAIRS = (("\u00e6", "ae"), ("\u0153", "oe"), ("\u00df", "ss"))


@dataclass(frozen=True, slots=True)
class EnglishLexicon:
    """`data/en.yaml`, `data/en_names.txt` and `data/en_words.txt` in memory; everything is lower case and without accents."""

    given: frozenset[str]
    family: frozenset[str]
    common: frozenset[str]
    words: frozenset[str]
    titles: frozenset[str]
    verbs: frozenset[str]
    not_before: frozenset[str]
    not_after: frozenset[str]
    places: frozenset[str]
    eponyms: frozenset[str]
    particles: frozenset[str]
    suffixes: frozenset[str]
    never: frozenset[str]
    announce: tuple[str, ...]
    place_phrases: frozenset[str]
    pinyin: regex.Pattern[str]


def plain(word: str) -> str:
    """Return a word in lower case without accents."""
    word = word.lower().translate(_LETTERS)
    if word.isascii():
        return word
    for letter, letters in _PAIRS:
        word = word.replace(letter, letters)
    return "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char))


@lru_cache(maxsize=1)
def english_lexicon() -> EnglishLexicon:
    """Return the tables, read once a process."""
    data = load_yaml(_DATA / "en.yaml").value
    chinese = load_yaml(_DATA / "zh.yaml").value
    names: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in (_DATA / "en_names.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            current = names.setdefault(line[2:], set())
        else:
            current.update(line.split())
    sets = {key: frozenset(data[key].split()) for key in ("titles", "not_before", "not_after", "places", "eponyms", "particles", "suffixes", "never", "words")}
    return EnglishLexicon(
        given=frozenset(names["given"] | names["both"]),
        family=frozenset(names["family"] | names["both"]),
        common=frozenset(names["common"]) | sets["words"],
        words=frozenset((_DATA / "en_words.txt").read_text(encoding="utf-8").split()),
        verbs=frozenset(data["people_verbs"].split()),
        announce=tuple(data["announce"].split("|")),
        place_phrases=frozenset(data["place_phrases"].split("|")),
        pinyin=regex.compile("(?:" + "|".join(sorted(chinese["pinyin_syllables"].split(), key=len, reverse=True)) + "){1,3}"),
        **{key: value for key, value in sets.items() if key != "words"},
    )
