"""Is an answer supported by the knowledge base? Support of each sentence, numbers that contradict, sources that are not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from metier.config import load_yaml
from metier.prepare.quality.knowledge import KnowledgeBase
from metier.prepare.quality.terms import terms
from metier.prepare.sentences import sentences

__all__ = ["Checked", "check_facts", "quantities"]

_PASSAGES = 3
_LEAST_TERMS = 4
_WELL_SUPPORTED = 0.7
_SAME_SUBJECT = 0.45
_CONTRADICTED = 0.4
_MISSING_SOURCE = 0.5
_CLAIMS = 24


@dataclass(frozen=True, slots=True)
class Checked:
    """What the knowledge base says of one answer. `value` is None where it says nothing about it."""

    value: float | None
    support: float
    contradicted: tuple[str, ...]
    sources_found: tuple[str, ...]
    sources_missing: tuple[str, ...]
    passages: tuple[str, ...]
    """Where the best passages stand."""


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    value: Mapping[str, Any] = load_yaml(Path(__file__).parent / "data" / "knowledge.yaml").value
    names = {name.lower(): group[0] for group in value["units"] for name in group}
    longest = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    numerals = "".join([*value["digits"], *value["tens"]])
    number = rf"(?<![0-9.])([0-9]+(?:,[0-9]{{3}})*(?:\.[0-9]+)?|[{numerals}]+)"
    quantity = regex.compile(rf"{number}\s*(?i:({longest})(?![A-Za-z]))")
    return {**value, "names": names, "quantity": quantity, "title": regex.compile(value["title"]), "article": regex.compile(value["article"])}


def _value(text: str) -> float | None:
    """Return the number that digits or Chinese numerals say, or None."""
    if text[0].isdigit() and text.isascii():
        return float(text.replace(",", ""))
    data = _data()
    if all(sign in data["digits"] for sign in text):
        return float("".join(str(data["digits"][sign]) for sign in text))
    total, section, digit = 0, 0, 0
    for sign in text:
        if sign in data["digits"]:
            digit = data["digits"][sign]
            continue
        power = data["tens"][sign]
        if power >= 10_000:
            total = (total + section + digit) * power
            section = 0
        else:
            section += (digit or 1) * power
        digit = 0
    return float(total + section + digit)


def quantities(text: str) -> dict[str, dict[float, str]]:
    """Return the numbers of a text by unit, each with the words it stands in: digits and Chinese numerals are one number."""
    data = _data()
    found: dict[str, dict[float, str]] = {}
    for match in data["quantity"].finditer(text):
        value = _value(match[1])
        if value is not None:
            found.setdefault(data["names"][match[2].lower()], {}).setdefault(value, match[0])
    return found


def check_facts(question: str, answer: str, knowledge: KnowledgeBase, *, covered: float) -> Checked:
    """Compare an answer with the best passages for each of its sentences (the first 24 that say enough).

    Support is the share of a sentence's terms, by weight, in the passage that holds most of them; the answer's is the mean over
    sentences by their number of terms. A number is contradicted if a passage on the same subject gives its unit with other numbers
    and none of the best passages gives it. With support below `covered`, no contradiction and no named source the base says nothing.
    """
    claims = [
        (text, found) for text, found in ((answer[start:end], terms(answer[start:end])) for start, end in sentences(answer)) if len(found) >= _LEAST_TERMS
    ]
    asked = terms(question)
    supports: list[tuple[float, int]] = []
    contradicted: dict[str, None] = {}
    places: dict[int, float] = {}
    for text, found in claims[:_CLAIMS]:
        best = knowledge.search([*found, *asked], _PASSAGES)
        scored = [(knowledge.contained(found, number), number) for number in best]
        supports.append((max((score for score, _ in scored), default=0.0), len(found)))
        for score, number in scored:
            places[number] = max(places.get(number, 0.0), score)
        contradicted.update(dict.fromkeys(_contradictions(text, scored, knowledge)))
    weight = sum(count for _, count in supports)
    support = sum(score * count for score, count in supports) / weight if weight else 0.0
    there, missing = _sources(answer, knowledge)
    where = tuple(knowledge.passages[number].uri for number in sorted(places, key=lambda number: (-places[number], number))[:_PASSAGES])
    if support < covered and not contradicted and not there and not missing:
        return Checked(None, support, (), (), (), where)
    value = min(1.0, support / _WELL_SUPPORTED)
    value *= _CONTRADICTED if contradicted else 1.0
    value *= _MISSING_SOURCE if missing else 1.0
    return Checked(value, support, tuple(contradicted), there, missing, where)


def _contradictions(claim: str, scored: list[tuple[float, int]], knowledge: KnowledgeBase) -> list[str]:
    stated = quantities(claim)
    if not stated:
        return []
    near = [number for score, number in scored if score >= _SAME_SUBJECT]
    given = [quantities(knowledge.passages[number].text) for number in near]
    every = [quantities(knowledge.passages[number].text) for _, number in scored]
    found = []
    for unit, values in stated.items():
        others = {value for item in given for value in item.get(unit, {})}
        known = {value for item in every for value in item.get(unit, {})}
        found += [words for value, words in values.items() if others and value not in known]
    return found


def _bare(title: str) -> str:
    title = title.replace(" ", "")
    for prefix in _data()["title_prefixes"]:
        title = title.removeprefix(prefix)
    return title


def _sources(answer: str, knowledge: KnowledgeBase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the titles (with article, if one is named) that an answer cites, those in the knowledge base and those not."""
    data = _data()
    found: dict[str, bool] = {}
    titles = list(data["title"].finditer(answer))
    for index, match in enumerate(titles):
        name = _bare(match[1])
        rest = answer[match.end() : titles[index + 1].start() if index + 1 < len(titles) else match.end() + 200]
        numbers = _article_numbers(knowledge, name)
        article = data["article"].match(rest.lstrip("\u300b "))
        label = match[0]
        if article is None:
            found[label] = numbers is not None
            continue
        wanted = _value(next(group for group in article.groups() if group))
        found[label + article[0]] = numbers is not None and (wanted in numbers or not numbers)
    return tuple(label for label, there in found.items() if there), tuple(label for label, there in found.items() if not there)


def _article_numbers(knowledge: KnowledgeBase, name: str) -> frozenset[float] | None:
    """Return the numbers of the articles of a title, empty if it has none, or None for a title that is not there."""
    return _catalogue(knowledge).get(name)


@lru_cache(maxsize=4)
def _catalogue(knowledge: KnowledgeBase) -> dict[str, frozenset[float]]:
    pattern = _data()["article"]
    numbers: dict[str, set[float]] = {}
    for passage in knowledge.passages:
        held = numbers.setdefault(_bare(passage.title), set())
        match = pattern.match(passage.text)
        if match:
            value = _value(next(group for group in match.groups() if group))
            if value is not None:
                held.add(value)
    return {name: frozenset(values) for name, values in numbers.items()}
