"""The retention probe: general ability in Chinese and English, made by rules from a seed, and what is kept of it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metier.config import load_yaml
from metier.evaluation.items import Item, Task, conversation
from metier.evaluation.statistics import Floats, Interval, interval
from metier.packs.spec import Metric

__all__ = ["FAMILIES", "RETENTION", "retention_task", "summarise"]

RETENTION = "retention"
FAMILIES = ("arithmetic", "copying", "format", "translation", "knowledge")
_LANGUAGES = ("zh", "en")
_CHOICES = 4
_CAP = 1.05
_SURE = 3.0

_Made = tuple[str, str, list[str]]
"""Name of the prompt, question, choices with the right one first."""


def retention_task(count: int, seed: int, languages: Sequence[str]) -> Task:
    """Return the probe: about `count` items with four choices each, as many of each family and language as of the next.

    The project's languages are asked; both if it has none that the probe knows. The same seed gives the same items.
    """
    material = load_yaml(Path(__file__).parent / "data" / "retention.yaml").value
    asked = [language for language in _LANGUAGES if language in languages] or list(_LANGUAGES)
    share = max(1, round(count / (len(FAMILIES) * len(asked))))
    items: list[Item] = []
    for family in FAMILIES:
        for language in asked:
            # A string seed is hashed the same way in every process (unlike a tuple).
            generator = random.Random(f"{seed}/{family}/{language}")
            items += _items(family, language, share, generator, material)
    metrics = (Metric(metric="acc"),)
    return Task(RETENTION, "choose", tuple(items), metrics, version="1", available=len(items), config={"families": list(FAMILIES), "seed": seed})


def _items(family: str, language: str, share: int, generator: random.Random, material: dict[str, Any]) -> Iterator[Item]:
    seen: set[str] = set()
    # A family of finite material (words, questions) may hold less than the share: the attempts are bounded.
    for _ in range(share * 20):
        prompt, question, choices = _MAKERS[family](language, generator, material)
        if question in seen or len(set(choices)) < _CHOICES:
            continue
        seen.add(question)
        right = choices[0]
        generator.shuffle(choices)
        text = material["prompts"][prompt][language].replace("{question}", question)
        yield Item(f"{family}-{language}-{len(seen):03d}", language, conversation(text), right, tuple(choices), family=family)
        if len(seen) == share:
            return


def _arithmetic(language: str, generator: random.Random, material: dict[str, Any]) -> _Made:
    left, right = generator.randint(1, 9), generator.randint(1, 9)
    sign = generator.choice("+-")
    if sign == "-" and right > left:
        left, right = right, left
    result = left + right if sign == "+" else left - right
    wrong = generator.sample([result + step for step in (-10, -3, -2, -1, 1, 2, 3, 10) if result + step >= 0], _CHOICES - 1)
    return "arithmetic", f"{left} {sign} {right}", [str(value) for value in (result, *wrong)]


def _copying(language: str, generator: random.Random, material: dict[str, Any]) -> _Made:
    words = [*generator.sample(material["words"][language], 4), str(generator.randint(10, 99))]
    generator.shuffle(words)
    lines = [" ".join(words)]
    while len(lines) < _CHOICES:
        changed = list(words)
        first, second = generator.sample(range(len(words)), 2)
        changed[first], changed[second] = changed[second], changed[first]
        if (line := " ".join(changed)) not in lines:
            lines.append(line)
    return "copying", lines[0], lines


def _format(language: str, generator: random.Random, material: dict[str, Any]) -> _Made:
    """Right form against wrong forms of about the same length: a longer text is less likely whatever its form."""
    rule = generator.choice(("date", "json", "joined"))
    words: list[str] = generator.sample(material["words"][language], 3)
    if rule == "date":
        year, month, day = generator.randint(1950, 2030), generator.randint(1, 12), generator.randint(13, 28)
        name = material["months"][month - 1]
        question = material["date"][language].format(year=year, month=month, day=day, name=name)
        choices = [f"{year}-{month:02d}-{day:02d}", f"{year}-{day:02d}-{month:02d}", f"{day:02d}-{month:02d}-{year}", f"{month:02d}-{day:02d}-{year}"]
    elif rule == "json":
        count = generator.randint(2, 99)
        question = material["pair"][language].format(name=words[0], count=count)
        right = json.dumps({"name": words[0], "count": count}, ensure_ascii=False)
        choices = [right, right.replace(": ", " = "), right.replace("{", "(").replace("}", ")"), right.replace(", ", "; ")]
    else:
        question = material["separator"][language].join(words)
        choices = [mark.join(words) for mark in (";", ",", "|", "/")]
    return rule, question, choices


def _translation(language: str, generator: random.Random, material: dict[str, Any]) -> _Made:
    pairs = generator.sample(material["translation"], _CHOICES)
    side = 1 if language == "zh" else 0
    return "translation", pairs[0][side], [pair[1 - side] for pair in pairs]


def _knowledge(language: str, generator: random.Random, material: dict[str, Any]) -> _Made:
    question, *choices = generator.choice(material["knowledge"][language])
    return "knowledge", question, [str(choice) for choice in choices]


_MAKERS = {"arithmetic": _arithmetic, "copying": _copying, "format": _format, "translation": _translation, "knowledge": _knowledge}


def _band(kept: float) -> str:
    """Return the classic word for retention = after / before: .95 and more none, .90 to .95 slight, below severe."""
    return "none" if kept >= 0.95 else "slight" if kept >= 0.90 else "severe"


def summarise(items: Sequence[Item], base: Sequence[bool], tuned: Sequence[bool], weights: Floats, confidence: float) -> dict[str, Any]:
    """Return what is kept of general ability, as facts.

    R = mean over families of clip((tuned - chance) / (base - chance), 0, 1.05), over the families where base - chance is more
    than 3 standard errors (the larger of the share's own and that at chance); with none, R is not measurable (None), never 100 %.
    Forgetting F = mean over all families of max(0, base - tuned). Both with percentile intervals over `weights` (resamples x items).
    """
    before, after = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    families: dict[str, Any] = {}
    kept, kept_draws, lost, lost_draws = [], [], [], []
    for family in dict.fromkeys(item.family for item in items):
        places = np.asarray([index for index, item in enumerate(items) if item.family == family])
        chance = sum(1 / len(items[index].choices) for index in places) / len(places)
        drawn = weights[:, places] / np.maximum(weights[:, places].sum(axis=1, keepdims=True), 1)
        first, second = float(before[places].mean()), float(after[places].mean())
        error = math.sqrt(max(first * (1 - first), chance * (1 - chance)) / len(places))
        measurable = first - chance > _SURE * error
        entry: dict[str, Any] = {
            "base": first,
            "tuned": second,
            "chance": chance,
            "n": len(places),
            "measurable": measurable,
            "retention": None,
            "degradation": None,
        }
        lost.append(max(0.0, first - second))
        lost_draws.append(np.maximum(0.0, drawn @ (before[places] - after[places])))
        if measurable:
            entry["retention"] = min(_CAP, max(0.0, (second - chance) / (first - chance)))
            entry["degradation"] = _band(second / first)
            kept.append(entry["retention"])
            room = drawn @ before[places] - chance
            share = np.divide(drawn @ after[places] - chance, room, out=np.full(len(room), np.nan), where=room > 0)
            kept_draws.append(np.clip(share, 0, _CAP))
        families[family] = entry
    forgetting = interval(np.mean(lost_draws, axis=0), float(np.mean(lost)), confidence)
    retained: Interval | None = interval(np.mean(kept_draws, axis=0), float(np.mean(kept)), confidence) if kept else None
    return {
        "retention": None if retained is None else retained.as_facts(),
        "forgetting": forgetting.as_facts(),
        "measurable": retained is not None,
        "families": families,
        "n": len(items),
    }
