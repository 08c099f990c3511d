"""The figures of the guide hold on the sentences that a person labelled; the margins are what a change of a rule may cost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from metier.privacy.names import ChineseNames, EnglishNames, LacTagger
from metier.privacy.validators import resident_id

DATA = Path(__file__).parents[2] / "benchmarks" / "data"


def rows(language: str, part: str) -> list[dict[str, Any]]:
    items = [json.loads(line) for line in (DATA / f"names_{language}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [item for item in items if item["part"] == part]


def figures(tagger: Any, items: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the share of names that are found whole, and the share of findings of which at least half is a name."""
    whole, right = [], []
    for item, spans in zip(items, tagger.tag([item["text"] for item in items]), strict=True):
        found = {place for span in spans for place in range(span.start, span.end)}
        named = {place for start, end in item["spans"] for place in range(start, end)}
        whole += [all(place in found for place in range(start, end)) for start, end in item["spans"]]
        right += [2 * len(named & set(range(span.start, span.end))) >= span.end - span.start for span in spans]
    return sum(whole) / len(whole), sum(right) / len(right)


def test_the_set_is_as_large_as_the_guide_says_and_its_offsets_hold() -> None:
    chinese = rows("zh", "dev") + rows("zh", "test")
    assert len(chinese) == 385
    assert sum(len(item["spans"]) for item in chinese) == 294
    assert {item["licence"] for item in chinese} == {"MIT", "Apache-2.0"}
    for item in [*chinese, *rows("en", "dev"), *rows("en", "test")]:
        assert all(item["text"][start:end].strip() == item["text"][start:end] != "" for start, end in item["spans"])


@pytest.mark.parametrize(("part", "coverage", "precision"), [("dev", 0.97, 0.93), ("test", 0.95, 0.90)])
def test_chinese_names_with_the_tagger(part: str, coverage: float, precision: float) -> None:
    covered, right = figures(ChineseNames(LacTagger()), rows("zh", part))
    assert covered >= coverage
    assert right >= precision


@pytest.mark.parametrize("part", ["dev", "test"])
def test_chinese_names_by_rules_alone(part: str) -> None:
    covered, right = figures(ChineseNames(), rows("zh", part))
    assert covered >= 0.89
    assert right >= 0.90


def test_the_union_covers_more_than_the_tagger_alone() -> None:
    items = rows("zh", "dev") + rows("zh", "test")
    assert figures(ChineseNames(LacTagger()), items)[0] >= figures(LacTagger(), items)[0] + 0.05


@pytest.mark.parametrize("part", ["dev", "test"])
def test_english_names(part: str) -> None:
    covered, right = figures(EnglishNames(), rows("en", part))
    assert covered >= 0.95
    assert right >= 0.90


def test_no_mobile_or_resident_number_is_in_the_set() -> None:
    texts = " ".join(item["text"] for item in rows("zh", "dev") + rows("zh", "test"))
    assert not re.search(r"(?<![0-9])1[3-9][0-9]{9}(?![0-9])", texts)
    assert not [number for number in re.findall(r"(?<![0-9])[0-9]{17}[0-9X](?![0-9])", texts) if resident_id(number)]
