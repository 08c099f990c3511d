"""Real clinical terms with the ICD-10 chapter that each belongs to."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from metier_medical.demo.catalogue import DATA, package, read_data

__all__ = ["CodedTerm", "terms"]

_LONGEST = {"zh": 16, "en": 48}
# Words of the classification's own bookkeeping: such terms say nothing a person would write.
_BOOKKEEPING = re.compile(r"\b(?:other|unspecified|classified|elsewhere|due to|encounter|NOS|NEC|status)\b", re.IGNORECASE)
_HAN = re.compile("[\u4e00-\u9fff]")
_LEXICON = DATA.parent.parent / "lexicon.yaml"


@dataclass(frozen=True, slots=True)
class CodedTerm:
    """A term, the short name of its chapter in its language, and its three-character category."""

    term: str
    chapter: str
    category: str


def terms(language: str, count: int, *, seed: int) -> list[CodedTerm]:
    """Return at most `count` terms of a language, chapters in turn, no term twice; the same seed gives the same terms.

    English terms are descriptions and inclusion terms of ICD-10-CM, two of a category at most; Chinese ones come from the
    example's list, the pack's lexicon and the disease catalogue of faker_healthcare.
    """
    chance = random.Random(f"terms-{language}-{seed}")
    chapters: list[dict[str, Any]] = read_data("chapters.yaml")["chapters"]
    names = {str(item["number"]): str(item["name"][language]) for item in chapters}
    found = _english(names, chance) if language == "en" else _chinese(chapters, names)
    piles: dict[str, list[CodedTerm]] = {name: [] for name in names.values()}
    seen: set[str] = set()
    for term in found:
        key = term.term.lower()
        if key not in seen and len(term.term) <= _LONGEST[language]:
            seen.add(key)
            piles[term.chapter].append(term)
    for pile in piles.values():
        chance.shuffle(pile)
    chosen: list[CodedTerm] = []
    while len(chosen) < count and any(piles.values()):
        chosen += [pile.pop() for pile in piles.values() if pile]
    chosen = chosen[:count]
    chance.shuffle(chosen)
    return chosen


def _english(names: Mapping[str, str], chance: random.Random) -> Iterator[CodedTerm]:
    codes = package("simple_icd_10_cm", "simple-icd-10-cm")
    for number, name in names.items():
        for category in filter(codes.is_category, codes.get_descendants(number)):
            offered = [codes.get_description(category)]
            for code in [category, *codes.get_descendants(category)]:
                offered += codes.get_inclusion_term(code)
            plain = sorted({text for text in offered if not _BOOKKEEPING.search(text)})
            for text in chance.sample(plain, min(2, len(plain))):
                yield CodedTerm(text, name, category)


def _chinese(chapters: list[dict[str, Any]], names: Mapping[str, str]) -> Iterator[CodedTerm]:
    codes = package("simple_icd_10_cm", "simple-icd-10-cm")
    catalogue = package("faker_healthcare.zh_CN.disease_correlations", "faker-healthcare-provider").DISEASE_CORRELATIONS
    coded = [(text, row["icd10"]) for text, row in catalogue.items()]
    for concept in yaml.safe_load(_LEXICON.read_text(encoding="utf-8"))["lexicon"]:
        coded += [(text, concept["code"]) for text in (concept["preferred"]["zh"], *concept.get("variants", ())) if _HAN.search(text)]
    for text, code in coded:
        category = str(code).split(".")[0]
        number = codes.get_ancestors(category)[-1] if codes.is_valid_item(category) else ""
        if number in names:
            yield CodedTerm(text, names[number], category)
    for item in chapters:
        for text in item["zh"]:
            yield CodedTerm(text, names[str(item["number"])], text)
