"""Does an answer do what its question asks of the form? Only what a machine can check: language, format, number of items, length."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from metier.config import load_yaml
from metier.prepare.language import han_share
from metier.prepare.quality.measures import phrases
from metier.prepare.sentences import sentences

__all__ = ["Followed", "follows"]

_ECHO = 0.9
_OTHER_LANGUAGE = 0.2
_HAN_ENOUGH = 0.15
_LETTERS_ENOUGH = 12


@dataclass(frozen=True, slots=True)
class Followed:
    """How far an answer does what was asked, 0 to 1, what was asked that could be checked, and what was not done."""

    value: float
    asked: tuple[str, ...]
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Ask:
    name: str
    check: str
    value: Any
    pattern: regex.Pattern[str]


@lru_cache(maxsize=1)
def _asks() -> tuple[tuple[_Ask, ...], Mapping[str, int]]:
    value = load_yaml(Path(__file__).parent / "data" / "instruction.yaml").value
    asks = tuple(_Ask(item["name"], item["check"], item.get("value"), regex.compile(item["pattern"])) for item in value["asks"])
    return asks, value["numbers"]


def follows(question: str, answer: str) -> Followed:
    """Return what an answer does of what its question asks for.

    Without such a request there are still two: the language of the question, and more than the question itself.
    """
    asks, numbers = _asks()
    asked: list[str] = []
    missed: list[str] = []
    language_asked = False
    for ask in asks:
        match = ask.pattern.search(question)
        if match is None:
            continue
        number = next((group for group in match.groups() if group), None)
        wanted = ask.value if number is None else _number(number, numbers)
        if wanted is None and ask.check not in ("json", "option"):
            continue
        language_asked |= ask.check == "language"
        asked.append(ask.name)
        if not _CHECKS[ask.check](answer, wanted):
            missed.append(f"{ask.name} {wanted}" if isinstance(wanted, int) else ask.name)
    value = 1 - len(missed) / len(asked) if asked else 1.0
    if not language_asked and _languages_differ(question, answer):
        value *= _OTHER_LANGUAGE
        missed.append("language of the question")
    if _echoes(question, answer):
        value = 0.0
        missed.append("more than the question itself")
    return Followed(value, tuple(asked), tuple(missed))


def _number(text: str, numbers: Mapping[str, int]) -> int | None:
    if text.isdigit():
        return int(text)
    lower = text.lower()
    if lower in numbers:
        return numbers[lower]
    ten = next(sign for sign, value in numbers.items() if value == 10)
    before, mark, after = text.partition(ten)
    if not mark:
        return None
    tens, ones = numbers.get(before) if before else 1, numbers.get(after) if after else 0
    return None if tens is None or ones is None else 10 * tens + ones


def _languages_differ(question: str, answer: str) -> bool:
    if sum(map(str.isalpha, question)) < _LETTERS_ENOUGH or sum(map(str.isalpha, answer)) < _LETTERS_ENOUGH:
        return False
    return (han_share(question) >= _HAN_ENOUGH) != (han_share(answer) >= _HAN_ENOUGH)


def _echoes(question: str, answer: str) -> bool:
    bare_question, bare_answer = ("".join(filter(str.isalnum, text)).lower() for text in (question, answer))
    if not bare_answer or not bare_question:
        return False
    return bare_answer == bare_question or (bare_answer in bare_question and len(bare_answer) >= _ECHO * len(bare_question))


def _is_language(answer: str, wanted: Any) -> bool:
    return (han_share(answer) >= _HAN_ENOUGH) is (wanted == "zh")


_FENCED = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


def _is_json(answer: str, _: Any) -> bool:
    fenced = _FENCED.match(answer)
    try:
        json.loads(fenced[1] if fenced else answer)
    except ValueError:
        return False
    return True


def _has_items(answer: str, wanted: int) -> bool:
    lines = [line for line in answer.splitlines() if line.strip()]
    items = sum(1 for line in lines if phrases().item.match(line))
    if items:
        return items == wanted
    # No list marks: as many lines, or sentences, or parts between enumeration commas will do.
    parts = max(len(lines), len(sentences(answer)), len(re.split("[\u3001,;\uff1b]", answer)))
    return parts >= wanted


def _words(answer: str) -> int:
    return len(answer.split())


def _characters(answer: str) -> int:
    return sum(1 for char in answer if not char.isspace())


_OPTION = re.compile(r"^\W*[A-Za-z](?:\W*[A-Za-z]){0,5}\W*$")

_CHECKS: Mapping[str, Callable[[str, Any], bool]] = {
    "language": _is_language,
    "json": _is_json,
    "items": _has_items,
    "most_characters": lambda answer, wanted: _characters(answer) <= wanted,
    "least_characters": lambda answer, wanted: _characters(answer) >= wanted,
    "most_words": lambda answer, wanted: _words(answer) <= wanted,
    "least_words": lambda answer, wanted: _words(answer) >= wanted,
    "most_sentences": lambda answer, wanted: len(sentences(answer)) <= wanted,
    "begins": lambda answer, wanted: answer.strip().lower().startswith(tuple(wanted)),
    "option": lambda answer, _: _OPTION.match(answer) is not None,
}
