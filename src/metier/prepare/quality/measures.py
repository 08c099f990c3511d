"""Measures of a text's form: one pass that turns every character into its class, then counting.

Written for rows by the million: the classes of a text are one string, so that each count is one call; what is rare (mark-up,
addresses, repeats) is looked for only where a cheap sign of it stands in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml

__all__ = ["MEASURES", "Phrases", "measure", "phrases", "repeated_share"]

MEASURES = (
    "advertising",
    "boilerplate",
    "characters",
    "contacts",
    "duplicate_line_share",
    "han_share",
    "letter_share",
    "letter_word_share",
    "line_end_share",
    "lines",
    "list_line_share",
    "marks_per_100",
    "markup",
    "mean_word_length",
    "mojibake",
    "placeholder",
    "repeated_share",
    "replaced",
    "short_line_share",
    "stop_words",
    "symbol_share",
    "templates",
    "unfinished",
    "words",
)
"""What a rule may look at."""

_REPEAT_WINDOW = 20_000
"""Characters from the start in which repeats are looked for: the search is quadratic in the worst case."""

_SHORT_LINE = 30
_ENDS = frozenset(".!?\u3002\uff01\uff1f\u2026\"'\u201d\u2019\u300d\u300f)\uff09]\u3011\u300b;\uff1b~\uff5e}>*")
_LINE_ENDS = frozenset('.!?\u3002\uff01\uff1f\u2026"\u201d\u300d;\uff1b:\uff1a')
_WORD = re.compile(r"[^\s]+")


class _Classes(dict[int, str]):
    """Class of a code point: H Han, L Latin, O other letter, D digit, S blank, N line end, P punctuation, Y symbol, R replacement."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _class(chr(code))
        return found


def _class(char: str) -> str:
    if char == "\ufffd":
        return "R"
    if char in "\n\r\u2028\u2029":
        return "N"
    category = unicodedata.category(char)
    if category[0] == "L":
        name = unicodedata.name(char, "")
        return "H" if name.startswith("CJK") or char in "\u3005\u3007" else "L" if name.startswith("LATIN") else "O"
    return {"N": "D", "M": "O", "P": "P", "Z": "S", "C": "S"}.get(category[0], "Y")


_CLASSES = _Classes()
# Signs that belong to running text although Unicode counts them among the symbols.
_CLASSES.update({ord(char): "P" for char in "%+<>=~$\u00b0\u2103\u00b1\u2264\u2265\u2192\u00a5\uffe5\u00d7`\uff1e\uff1c\uff0b\uff1d\uff5e"})


@dataclass(frozen=True, slots=True)
class Phrases:
    """The literal strings and patterns that are counted, from `data/phrases.yaml`."""

    literal: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """By name the phrases in ASCII and the others: a text is asked only for what its letters allow."""
    placeholders: frozenset[str]
    stop_words: frozenset[str]
    contacts: tuple[re.Pattern[str], ...]
    markup: re.Pattern[str]
    item: re.Pattern[str]


@lru_cache(maxsize=1)
def phrases() -> Phrases:
    """Return the phrases that measures count."""
    value: Mapping[str, Any] = load_yaml(Path(__file__).parent / "data" / "phrases.yaml").value
    names = ("templates", "advertising", "boilerplate", "contacts", "mojibake")
    literal = {name: (tuple(filter(str.isascii, value[name])), tuple(item for item in value[name] if not item.isascii())) for name in names}
    return Phrases(
        literal,
        frozenset(value["placeholders"]),
        frozenset(value["stop_words"]),
        tuple(re.compile(pattern) for pattern in value["contact_patterns"]),
        re.compile(value["markup_pattern"]),
        re.compile(value["list_pattern"]),
    )


def measure(text: str, language: str | None) -> dict[str, float]:
    """Return the measures of a text as numbers. English ones are left out for Chinese text, Chinese ones for English text."""
    data = phrases()
    text = text.strip()
    classes = text.translate(_CLASSES)
    count = classes.count
    han, latin, other, digits, lines_after = count("H"), count("L"), count("O"), count("D"), count("N")
    marks, symbols, replaced = count("P"), count("Y"), count("R")
    letters = han + latin + other
    solid = letters + digits + marks + symbols + replaced
    lower = text.lower() if latin else text
    found: dict[str, float] = {
        "characters": len(text),
        "han_share": han / letters if letters else 0.0,
        "letter_share": letters / solid if solid else 0.0,
        "symbol_share": symbols / solid if solid else 0.0,
        "replaced": replaced,
        "repeated_share": repeated_share(text, 8 if han > latin else 16),
        "advertising": _among(data.literal["advertising"], lower, latin, han),
        "mojibake": 0 if text.isascii() else sum(map(text.count, [item for item in data.literal["mojibake"][1] if item in text])),
        "contacts": _among(data.literal["contacts"], lower, latin, han) + _addresses(text, lower, digits, data),
        "markup": len(data.markup.findall(text)) if "<" in text or "&" in text else 0,
        "placeholder": float(len(text) <= 40 and (not (letters or digits) or "".join(filter(str.isalnum, lower)) in data.placeholders)),
        "unfinished": float(bool(text) and text[-1] not in _ENDS),
        "lines": 1 + lines_after,
    }
    if lines_after:
        _lines(text, data, found)
    if language != "en":
        found["templates"] = _among(data.literal["templates"], text, latin, han)
        found["marks_per_100"] = 100 * (marks + lines_after) / solid if solid else 0.0
    if language != "zh":
        _words(lower, latin, data, found)
    return found


def _among(words: tuple[tuple[str, ...], tuple[str, ...]], text: str, latin: int, han: int) -> int:
    plain, other = words
    found = sum([word in text for word in other]) if han else 0
    return found + sum([word in text for word in plain]) if latin else found


def _addresses(text: str, lower: str, digits: int, data: Phrases) -> int:
    if digits >= 7 or "http" in lower or "www." in lower or "@" in text:
        return sum(len(pattern.findall(text)) for pattern in data.contacts)
    return 0


def _lines(text: str, data: Phrases, found: dict[str, float]) -> None:
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    total = len(lines)
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        if line in seen:
            repeated += len(line)
        seen.add(line)
    found["lines"] = total
    found["duplicate_line_share"] = repeated / max(1, sum(map(len, lines)))
    found["list_line_share"] = sum(1 for line in lines if data.item.match(line)) / total
    found["line_end_share"] = sum(1 for line in lines if line[-1] in _LINE_ENDS) / total
    found["short_line_share"] = sum(1 for line in lines if len(line) < _SHORT_LINE) / total


def _words(lower: str, latin: int, data: Phrases, found: dict[str, float]) -> None:
    words = lower.split()
    found["words"] = len(words)
    if words:
        distinct = set(words)
        found["mean_word_length"] = sum(map(len, words)) / len(words)
        found["stop_words"] = len(data.stop_words & distinct)
        numbers = sum([word.replace(".", "").replace(",", "").isdigit() or not any(map(str.isalpha, word)) for word in words]) if len(words) * 3 > latin else 0
        found["letter_word_share"] = 1 - numbers / len(words)
        found["boilerplate"] = _among(data.literal["boilerplate"], lower, latin, 0)


def repeated_share(text: str, size: int) -> float:
    """Return the share of characters that stand in a stretch of `size` that stood in the text before (first 20,000 characters).

    A repeat of 2 * `size` - 1 characters and more holds an aligned block, so blocks are probed first and most texts are done.
    """
    text = text[:_REPEAT_WINDOW]
    length = len(text)
    if length < 3 * size:
        return 0.0
    find = text.find
    if not any([find(text[start : start + size], start + 1) >= 0 for start in range(0, length - size + 1, size)]):  # noqa: C419 - a list is quicker here
        return 0.0
    seen: set[str] = set()
    covered, upto = 0, 0
    for start in range(length - size + 1):
        piece = text[start : start + size]
        if piece in seen:
            covered += start + size - max(start, upto)
            upto = start + size
        else:
            seen.add(piece)
    return covered / length
