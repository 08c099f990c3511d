"""What a writer is asked, and whether what it wrote is writing at all: not the prompt again, not a loop, not cut off.

A prompt is an instruction after two answered examples of it, as turns of a conversation: a base model that was never taught to follow instructions
goes on with what it sees, and sees there that an answer ends. The examples are of fields that no pack is about, so that a copy of them is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from metier.config import load_yaml
from metier.prepare.quality.measures import repeated_share
from metier.prepare.writers import Written
from metier.records import Message

__all__ = ["Task", "ask", "asks", "spoilt", "told"]

Task: TypeAlias = Mapping[str, Any]
"""What is asked in one language: `ask`, a text with {names} to fill in, and `shots`, examples with a value for each name and what is `said`."""

_UNIT = re.compile("[\u3400-\u9fff]|[a-z]+(?:'[a-z]+)?|[0-9]+")
_ROLE = re.compile(r"^(?:user|assistant|system|human)\s*[:\uff1a]", re.IGNORECASE | re.MULTILINE)
_ASKING: Mapping[str, Sequence[str]] = load_yaml(Path(__file__).parent / "data" / "asking.yaml").value


def ask(task: Task, values: Mapping[str, str]) -> tuple[Message, ...]:
    """Return the conversation that asks for one text: the examples with their answers, then the instruction with the `values` filled in."""
    turns: list[Message] = []
    for shot in task["shots"]:
        turns += [Message("user", _filled(task["ask"], shot)), Message("assistant", shot["said"])]
    return (*turns, Message("user", _filled(task["ask"], values)))


def told(task: Task) -> str:
    """Return all that a prompt says beside the values that are filled in: the instruction and the examples, a line each."""
    return "\n".join([re.sub(r"\{\w+\}", "\n", task["ask"]), *(text for shot in task["shots"] for text in shot.values())])


def _filled(text: str, values: Mapping[str, str]) -> str:
    # In one pass: what is filled in may hold braces of its own.
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def asks(text: str, language: str) -> bool:
    """Return whether a text asks: by a question mark, by a word that asks anywhere (Chinese) or at its beginning (English)."""
    low = text.lower()
    if "?" in low or "\uff1f" in low:
        return True
    words = _ASKING[language]
    return any(word in low for word in words) if language == "zh" else low.split(" ")[0] in words


def spoilt(written: Written, told: str, given: Iterable[str], *, run: int = 7, share: float = 0.5, repeated: float = 0.3) -> str | None:
    """Return why a text is no writing, or None: `unfinished`, `role_marker`, `echo`, `loop`.

    An echo has `run` neighbouring units (Han letters, Latin words) of what the prompt says (`told`) in a row, or at least `share` of its
    pairs of neighbouring units stand there; what the prompt was given to work on does not count. A loop stands at least to `repeated` in stretches
    (12 Han letters or 40 others) that stood in the text before.
    """
    text = written.text
    if not written.whole:
        return "unfinished"
    if _ROLE.search(text):
        return "role_marker"
    material = {pair for part in given for pair in _pairs(part)}
    own, known = _pairs(text), set(_pairs(told)) - material
    if own and (sum(pair in known for pair in own) >= share * len(own) or _runs(own, known, run)):
        return "echo"
    size = 12 if len(re.findall("[\u3400-\u9fff]", text)) * 4 >= len(text) else 40
    looped = repeated_share(text, size)
    return f"loop:{looped:.2f}>={repeated:g}" if looped >= repeated else None


def _pairs(text: str) -> list[tuple[str, str]]:
    return [pair for line in text.lower().splitlines() for pair in pairwise(_UNIT.findall(line))]


def _runs(own: Sequence[tuple[str, str]], known: set[tuple[str, str]], run: int) -> bool:
    """Return whether `run` units in a row are known: run - 1 pairs."""
    length = 0
    for pair in own:
        length = length + 1 if pair in known else 0
        if length >= run - 1:
            return True
    return False
