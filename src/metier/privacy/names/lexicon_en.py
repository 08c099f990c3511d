"""The tables behind English names: given and family names, words that are names too, and what stands around a name."""

from __future__ import annotations

import gzip
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import load_yaml

__all__ = ["EnglishLexicon", "english_lexicon", "pinyin", "plain"]

_DATA = Path(__file__).parent / "data"
_LETTERS = str.maketrans("\u00f8\u0142\u0111\u0131\u2019", "oldi'")
_PAIRS = (("\u00e6", "ae"), ("\u0153", "oe"), ("\u00df", "ss"))


@dataclass(frozen=True, slots=True)
class EnglishLexicon:
    """`data/en.yaml`, `data/en_names.txt.gz` and `data/en_words.txt.gz` in memory; everything is lower case and without accents."""

    given: frozenset[str]
    family: frozenset[str]
    common: frozenset[str]
    words: frozenset[str]
    titles: frozenset[str]
    verbs: frozenset[str]
    things: frozenset[str]
    everyday_things: frozenset[str]
    not_after: frozenset[str]
    places: frozenset[str]
    eponyms: frozenset[str]
    particles: frozenset[str]
    suffixes: frozenset[str]
    never: frozenset[str]
    announce: tuple[str, ...]


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
    names, other = _sections("en_names.txt.gz"), _sections("en_words.txt.gz")
    sets = {key: frozenset(data[key].split()) for key in ("titles", "not_after", "places", "eponyms", "particles", "suffixes", "never", "words")}
    return EnglishLexicon(
        given=names["given"] | names["both"],
        family=names["family"] | names["both"],
        common=names["common"] | sets["words"],
        words=other["words"],
        things=other["things"] | other["everyday-things"],
        everyday_things=other["everyday-things"],
        verbs=frozenset(data["people_verbs"].split()),
        announce=tuple(data["announce"].split("|")),
        places=sets["places"] | frozenset(data["place_phrases"].split("|")),
        **{key: value for key, value in sets.items() if key not in {"words", "places"}},
    )


@lru_cache(maxsize=1)
def pinyin() -> regex.Pattern[str]:
    """Return what one to three syllables of pinyin in lower case match."""
    syllables = sorted(load_yaml(_DATA / "zh.yaml").value["pinyin_syllables"].split(), key=len, reverse=True)
    return regex.compile(f"(?:{'|'.join(syllables)}){{1,3}}")


def _sections(name: str) -> dict[str, frozenset[str]]:
    """Return the words of a packed list by the heading that they stand under."""
    sections: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in gzip.decompress((_DATA / name).read_bytes()).decode("utf-8").splitlines():
        if line.startswith("# "):
            current = sections.setdefault(line[2:], set())
        else:
            current.update(line.split())
    return {heading: frozenset(words) for heading, words in sections.items()}
