"""Whether what a model wrote may become a record: question and answer each for itself, and the answer against its passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml
from metier.prepare.augment.quality import similarity
from metier.prepare.compare import bare
from metier.prepare.generate.retrieval import words
from metier.prepare.generate.settings import GenerateSettings
from metier.prepare.language import detect

__all__ = ["answer_refused", "prompts", "question_refused", "supported"]

_NUMBER = re.compile(r"[0-9]+(?:[.,/][0-9]+)*")


@lru_cache(maxsize=1)
def prompts() -> dict[str, Any]:
    """Return the prompts by step and language."""
    found: dict[str, Any] = load_yaml(Path(__file__).parent / "data" / "prompts.yaml").value
    return found


def question_refused(question: str, example: str, settings: GenerateSettings, *, language: str, identifies: Callable[[str], bool] | None = None) -> str | None:
    """Return why a new question is not good enough, or None: empty, too_short, same_as_example, too_near, too_long, other_language, identifier."""
    if len(bare(question)) < settings.shortest:
        return "empty_question" if not bare(question) else "question_too_short"
    if bare(question) == bare(example):
        return "same_as_example"
    if detect(question) != language:
        return "question_in_other_language"
    near, ratio = similarity(question, example), len(question) / max(1, len(example))
    if near > settings.question.highest or near < settings.question.lowest:
        return f"question_similarity:{near:.2f}"
    if ratio > settings.question.longest or ratio < settings.question.shortest:
        return f"question_length:{ratio:.2f}"
    return "identifier" if identifies is not None and identifies(question) else None


def supported(answer: str, passages: Sequence[str]) -> float:
    """Return the share of an answer's words that stand in its passages, from 0 to 1."""
    said = words(answer)
    known = {word for passage in passages for word in words(passage)}
    return sum(word in known for word in said) / len(said) if said else 0.0


def answer_refused(
    answer: str, question: str, passages: Sequence[str], settings: GenerateSettings, *, language: str, identifies: Callable[[str], bool] | None = None
) -> str | None:
    """Return why an answer is not good enough, or None.

    Reasons: empty, too short, in another language, `unanswerable` (the writer says so), a number that neither passages nor question
    hold, too little support, the question again, an identifier.
    """
    if len(bare(answer)) < settings.shortest:
        return "empty_answer" if not bare(answer) else "answer_too_short"
    if any(phrase in answer.lower() for phrase in prompts()["unanswerable"][language]) and len(answer) < 80:
        return "unanswerable"
    if detect(answer) != language:
        return "answer_in_other_language"
    if bare(answer) == bare(question):
        return "answer_repeats_question"
    known = {number for text in (question, *passages) for number in _NUMBER.findall(text)}
    if strange := [number for number in _NUMBER.findall(answer) if number not in known]:
        return f"number_without_source:{len(strange)}"
    share = supported(answer, passages)
    if share < settings.support:
        return f"support:{share:.2f}<{settings.support:g}"
    return "identifier" if identifies is not None and identifies(answer) else None
