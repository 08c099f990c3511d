"""Longer conversations from a shorter one: what comes before the question, what follows the answer, a wrong answer that is put right."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from metier.records import Message

__all__ = ["corrected", "followed", "opened", "refusing"]

_SENTENCE = re.compile("[^\u3002\uff01\uff1f\uff1b\n]+[\u3002\uff01\uff1f\uff1b]?|\n")
_SENTENCE_LATIN = re.compile(r"(?:[^.!?\n]|[.!?](?!\s|$))+[.!?]*|\n")


_FRAGMENT = 6


def _one(options: Sequence[Any], chance: random.Random) -> Any:
    return options[chance.randrange(len(options))]


def opened(messages: Sequence[Message], words: Mapping[str, Sequence[str]], chance: random.Random) -> tuple[Message, ...]:
    """Return the conversation with a turn before it: the user says that there is a question, the assistant asks for it."""
    system = tuple(message for message in messages if message.role == "system")
    rest = tuple(message for message in messages if message.role != "system")
    return (*system, Message("user", _one(words["openers"], chance)), Message("assistant", _one(words["openings"], chance), learn=True), *rest)


def followed(messages: Sequence[Message], words: Mapping[str, Sequence[str]], language: str | None, chance: random.Random) -> tuple[Message, ...] | None:
    """Return the conversation with a second question about its last answer, answered by that answer's own sentences.

    Either the answer again, or its sentences as a list, word for word. None where the last message is no answer.
    """
    if not messages or messages[-1].role != "assistant":
        return None
    answer = messages[-1].content
    pattern = _SENTENCE if language == "zh" else _SENTENCE_LATIN
    sentences = _joined([found.strip() for found in pattern.findall(answer) if found.strip()])
    if len(sentences) > 2 and chance.random() < 0.6:
        question, reply = _one(words["list"], chance), "\n".join(f"\u2022 {sentence}" for sentence in sentences)
    else:
        question, reply = _one(words["again"], chance), answer
    return (*messages, Message("user", question), Message("assistant", reply, learn=True))


def _joined(sentences: Sequence[str]) -> list[str]:
    """Return the sentences with a fragment (a greeting, a number of a list) put before the sentence it belongs to."""
    joined: list[str] = []
    held = ""
    for sentence in sentences:
        held = f"{held} {sentence}" if held else sentence
        if len(sentence) >= _FRAGMENT:
            joined.append(held)
            held = ""
    return [*joined, held] if held else joined


def corrected(messages: Sequence[Message], wrong: str, words: Mapping[str, Sequence[str]], chance: random.Random) -> tuple[Message, ...] | None:
    """Return the conversation in which the last question first gets `wrong`, which is not learnt, then what is wrong with it, then its answer."""
    if not messages or messages[-1].role != "assistant":
        return None
    right = messages[-1].content
    said = _one(words["sorry"], chance)
    before = (*messages[:-1], Message("assistant", wrong, learn=False), Message("user", _one(words["wrong"], chance)))
    return (*before, Message("assistant", f"{said}{right}", learn=True))


def refusing(messages: Sequence[Message], words: Mapping[str, Sequence[str]], chance: random.Random) -> tuple[Message, ...] | None:
    """Return the first question of another field with a polite refusal, or None where there is none."""
    question = next((message for message in messages if message.role == "user"), None)
    return None if question is None else (question, Message("assistant", _one(words["refusals"], chance), learn=True))
