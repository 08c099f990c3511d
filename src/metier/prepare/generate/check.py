"""Whether what a model wrote may become a record: question and answer each for itself, and the answer against its passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml
from metier.prepare.asking import asks
from metier.prepare.augment.quality import similarity
from metier.prepare.compare import bare
from metier.prepare.generate.retrieval import words
from metier.prepare.generate.settings import GenerateSettings
from metier.prepare.language import detect

__all__ = ["answer_refused", "covered", "prompts", "question_refused", "supported"]


@lru_cache(maxsize=1)
def prompts() -> dict[str, Any]:
    """Return what is asked by step and language (`metier.prepare.asking.Task`), and how a writer says that it cannot answer."""
    found: dict[str, Any] = load_yaml(Path(__file__).parent / "data" / "prompts.yaml").value
    return found


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], frozenset[str], frozenset[str]]:
    """Return the pattern of numbers, those of articles in Han numerals included, the words that are about nothing, and the letters whose pairs are."""
    found = load_yaml(Path(__file__).parent / "data" / "words.yaml").value
    nothing = found["about_nothing"]
    return re.compile(found["number"]), frozenset((*nothing["zh"], *nothing["en"])), frozenset(nothing["letters"])


def _subject(text: str) -> list[str]:
    """Return the words of a text that say what it is about."""
    _, nothing, letters = _patterns()
    return [word for word in words(text) if word not in nothing and letters.isdisjoint(word)]


def question_refused(
    question: str, example: str, settings: GenerateSettings, *, language: str, answer: str = "", identifies: Callable[[str], bool] | None = None
) -> str | None:
    """Return why a new question is not good enough, or None.

    Reasons: empty, too short, the example again, in another language, no question where the example is one, about something else (no word of the
    example's subject in it, nor of the `answer` that it follows), too near to the example, too short or long beside it, an identifier.
    """
    if len(bare(question)) < settings.shortest:
        return "empty_question" if not bare(question) else "question_too_short"
    if bare(question) == bare(example):
        return "same_as_example"
    if detect(question) != language:
        return "question_in_other_language"
    if asks(example, language) and not asks(question, language):
        return "no_question"
    about = set(_subject(f"{example}\n{answer}"))
    if about and about.isdisjoint(_subject(question)):
        return "off_subject"
    near, ratio = similarity(question, example), len(question) / max(1, len(example))
    if near > settings.question.highest or near < settings.question.lowest:
        return f"question_similarity:{near:.2f}"
    if ratio > settings.question.longest or ratio < settings.question.shortest:
        return f"question_length:{ratio:.2f}"
    return "identifier" if identifies is not None and identifies(question) else None


def covered(question: str, passages: Sequence[str]) -> float:
    """Return the share of the words of a question's subject that stand in its passages, from 0 to 1; 1 for a question that names no subject."""
    asked = set(_subject(question))
    return len(asked & {word for passage in passages for word in words(passage)}) / len(asked) if asked else 1.0


def supported(answer: str, passages: Sequence[str], *, question: str = "") -> float:
    """Return the share of the words that an answer adds to its question which stand in its passages, from 0 to 1; 0 if it adds none.

    Words that are about nothing do not count.
    """
    asked = set(words(question))
    said = [word for word in _subject(answer) if word not in asked]
    known = {word for passage in passages for word in words(passage)}
    return sum(word in known for word in said) / len(said) if said else 0.0


def answer_refused(
    answer: str, question: str, passages: Sequence[str], settings: GenerateSettings, *, language: str, identifies: Callable[[str], bool] | None = None
) -> str | None:
    """Return why an answer is not good enough, or None.

    Reasons: empty, too short, in another language, `unanswerable` (the writer says so), a number that neither passages nor question
    hold, too little support for what it adds to the question, the question again or another one, an identifier.
    """
    if len(bare(answer)) < settings.shortest:
        return "empty_answer" if not bare(answer) else "answer_too_short"
    if any(phrase in answer.lower() for phrase in prompts()["unanswerable"][language]) and len(answer) < 80:
        return "unanswerable"
    if detect(answer) != language:
        return "answer_in_other_language"
    if bare(answer) == bare(question):
        return "answer_repeats_question"
    if answer.rstrip().endswith(("?", "\uff1f")):
        return "answer_asks"
    find = _patterns()[0].findall
    known = {number for text in (question, *passages) for number in find(text)}
    if strange := [number for number in find(answer) if number not in known]:
        return f"number_without_source:{len(strange)}"
    share = supported(answer, passages, question=question)
    if share < settings.support:
        return f"support:{share:.2f}<{settings.support:g}"
    return "identifier" if identifies is not None and identifies(answer) else None
