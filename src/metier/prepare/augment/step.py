"""The step: variants of the training records, each pointing to its parent and bound to its parent's split, group and subject."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metier.digest import digest_of
from metier.packs.spec import Phrase, Term
from metier.prepare.augment import dialogue, noise
from metier.prepare.augment.derive import chance_of, derive, question_place, with_question
from metier.prepare.augment.phrases import phrases
from metier.prepare.augment.rewrite import rewrite
from metier.prepare.augment.settings import AugmentSettings
from metier.prepare.compare import critical
from metier.prepare.standardize import Lexicon, denied
from metier.prepare.writers import Writer
from metier.records import Drop, Record

__all__ = ["Means", "augment", "rules"]

_HAN = re.compile("[\u4e00-\u9fff]")
_LONG = 300
"""A longer question is an instruction with its material; nobody greets in front of it."""


@dataclass(frozen=True, slots=True)
class Means:
    """What variants are made with beside the records: the pack's phrases and terms, a writer, questions of other fields."""

    phrases: tuple[Phrase, ...] = ()
    terms: tuple[Term, ...] = ()
    lexicon: Lexicon | None = None
    writer: Writer | None = None
    general: Sequence[Record] = ()
    """Records of other fields, for refusals."""
    identifies: Callable[[str], bool] | None = None
    """Whether a text holds a personal identifier; what a model wrote is asked."""
    names: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Filled from `terms`: the names of each concept."""

    def __post_init__(self) -> None:
        for term in self.terms:
            self.names[term.system, term.code] = tuple(dict.fromkeys((*term.preferred.values(), *term.variants)))


def augment(
    records: Sequence[Record], settings: AugmentSettings, means: Means | None = None, *, splits: Mapping[str, str] | None = None
) -> Iterator[Record | Drop]:
    """Yield the variants of the records, and a drop for each that is not good enough; the records themselves are not yielded.

    With `splits` (record id -> split) only records of `train` are taken; without it the caller gives training records only.
    What is made of a record depends on the seed and the record alone (a wrong answer for a correction is taken from the others).
    Raises InputError if a model is to write and there is no writer, ModelError as the writer does.
    """
    means = means or Means()
    chosen = [record for record in records if splits is None or splits.get(record.id) == "train"]
    yield from rules(chosen, settings, means)
    yield from rewrite(chosen, settings, means.writer, identifies=means.identifies)


def rules(records: Sequence[Record], settings: AugmentSettings, means: Means) -> Iterator[Record]:
    """Yield the variants that rules make, without a model."""
    talks = [record for record in records if question_place(record) is not None]
    others = _Others(talks)
    for record in talks:
        for kind in ("synonym", "template", "colloquial", "typo", "format", "opening", "follow_up", "negative"):
            chance = chance_of(settings, kind, record.id)
            if chance.random() < getattr(settings.shares, kind) and (variant := _variant(record, kind, chance, means, others)) is not None:
                yield variant
    yield from _refusals(len(records), settings, means)


def _variant(record: Record, kind: str, chance: random.Random, means: Means, others: _Others) -> Record | None:
    words = phrases(record.language or "", means.phrases)
    place = question_place(record)
    if place is None or (not words and kind not in ("synonym", "typo", "format")):
        return None
    if kind in ("opening", "follow_up", "negative"):
        return _longer(record, kind, chance, words, others)
    if kind == "template" and any(message.role == "user" for message in record.messages[:place]):
        return None  # nobody greets in the middle of a conversation
    question = record.messages[place].content
    changed = _reworded(question, kind, record.language, chance, means, words)
    return None if changed == question or not changed.strip() else derive(record, with_question(record, changed), kind)


def _reworded(question: str, kind: str, language: str | None, chance: random.Random, means: Means, words: Mapping[str, Sequence[Any]]) -> str:
    if kind == "synonym":
        return _synonym(question, language, chance, means)
    if kind == "colloquial":
        return noise.swapped(question, words["colloquial"], chance)
    if kind == "typo":
        return noise.typo(question, language, chance)
    if kind == "format":
        return noise.format_noise(question, language, chance)
    return _framed(question, chance, words)


def _framed(question: str, chance: random.Random, words: Mapping[str, Sequence[Any]]) -> str:
    """Return the question with a phrase for another of the same meaning, or with a greeting or a closing if it is short and has none."""
    swapped = noise.swapped(question, words["same"], chance)
    if (swapped != question and chance.random() < 0.7) or len(question) > _LONG:
        return swapped
    if chance.random() < 0.6 and not question.lower().startswith(tuple(words["greeted"])):
        return str(words["greetings"][chance.randrange(len(words["greetings"]))]) + question
    closing = str(words["closings"][chance.randrange(len(words["closings"]))])
    return question if question.endswith(closing.strip()) else question + closing


def _synonym(question: str, language: str | None, chance: random.Random, means: Means) -> str:
    """Return the question with one asserted term under another name of its concept, in the same script, with the same numbers.

    Not exchanged are a Latin name in Chinese text, a Han name inside a longer word, and names that differ in a qualifier (an acute
    disease is not the disease).
    """
    if means.lexicon is None:
        return question
    words = phrases(language or "")
    matches = means.lexicon.matches(question)
    choices = []
    for match, no in zip(matches, denied(question, matches), strict=True):
        surface = question[match.start : match.end]
        inside = _goes_on(question[match.start - 1 : match.start], words.get("before_name", "")) or _goes_on(
            question[match.end : match.end + 1], words.get("after_name", "")
        )
        if no or len(match.concepts) != 1 or (language == "zh" and (surface.isascii() or inside)):
            continue
        concept = match.concepts[0]
        names = means.names.get((concept.system, concept.code), ())
        choices += [(match, name) for name in names if _stands_for(name, surface, words.get("qualifiers", ()))]
    if not choices:
        return question
    match, name = choices[chance.randrange(len(choices))]
    return question[: match.start] + name + question[match.end :]


def _goes_on(letter: str, borders: Sequence[str]) -> bool:
    """Return whether a letter beside a name makes it a part of a longer word, as far as single letters can tell."""
    return _HAN.fullmatch(letter) is not None and letter not in borders


def _stands_for(name: str, surface: str, qualifiers: Sequence[str]) -> bool:
    one, other = name.casefold(), surface.casefold()
    same = all((word in one) == (word in other) for word in qualifiers)
    return same and name.isascii() == surface.isascii() and one != other and critical(name) == critical(surface)


class _Others:
    """Answers of other records, for what is wrong about a question."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_language: dict[str | None, list[Record]] = {}
        for record in sorted(records, key=lambda record: record.id):
            self._by_language.setdefault(record.language, []).append(record)

    def wrong(self, record: Record, chance: random.Random) -> str | None:
        """Return the answer of another question in the same language, or None if there is none."""
        pool = self._by_language.get(record.language, [])
        place = question_place(record)
        for _ in range(8):
            other = pool[chance.randrange(len(pool))]
            asked = question_place(other)
            if place is None or asked is None:
                continue
            one, two = record.messages[place : place + 2], other.messages[asked : asked + 2]
            if one[0].content != two[0].content and one[1].content != two[1].content and record.group in (None, *({other.group} ^ {record.group})):
                return two[1].content
        return None


def _longer(record: Record, kind: str, chance: random.Random, words: Mapping[str, Sequence[Any]], others: _Others) -> Record | None:
    if kind == "opening":
        return derive(record, dialogue.opened(record.messages, words, chance), kind)
    if kind == "follow_up":
        messages = dialogue.followed(record.messages, words, record.language, chance)
        return None if messages is None else derive(record, messages, kind)
    wrong = others.wrong(record, chance)
    messages = None if wrong is None else dialogue.corrected(record.messages, wrong, words, chance)
    return None if messages is None else derive(record, messages, kind, task="correction", rejected=wrong)


def _refusals(size: int, settings: AugmentSettings, means: Means) -> Iterator[Record]:
    """Yield refusals of questions of other fields, as many as their share of the records asks for and questions are there."""
    pool = sorted((record for record in means.general if phrases(record.language or "", means.phrases)), key=lambda one: digest_of([settings.seed, one.id]))
    wanted = round(settings.shares.refusal * size)
    for record in pool:
        if wanted <= 0:
            return
        messages = dialogue.refusing(record.messages, phrases(record.language or "", means.phrases), chance_of(settings, "refusal", record.id))
        if messages is not None:
            wanted -= 1
            yield derive(record, messages, "refusal", task="refusal")
