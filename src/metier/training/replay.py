"""What the base model answers to general questions, once, before it is trained: training it along keeps the expert's general manner.

The answers are the base model's own distribution, so no outside data is needed (self-synthesised rehearsal: Huang et al. 2024, arXiv 2403.01244).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from metier.digest import canonical_json, digest_of
from metier.kept import holding
from metier.models import Base, Chat, Encoded, GenerationSettings, LocalModel
from metier.progress import Progress
from metier.records import Message, Record, identify
from metier.training.batches import WRITTEN
from metier.training.examples import Collector, Examples
from metier.training.settings import ReplaySettings

__all__ = ["Answered", "encode_written", "general_prompts", "write_answers"]

_TASK = "replay"
_LANGUAGES = ("zh", "en")
_BATCH = 32
_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class Answered:
    """A general question and the base model's answer; `ended` is False where the answer was cut at its largest length."""

    language: str
    prompt: str
    answer: str
    ended: bool


def general_prompts(count: int, languages: Iterable[str]) -> list[tuple[str, str]]:
    """Return (language, prompt): all different, spread evenly over languages, topics and patterns, the first of them the same for any count."""
    wanted = [language for language in _LANGUAGES if language in set(languages)] or list(_LANGUAGES)
    material = yaml.safe_load(resources.files("metier.training").joinpath("data/general.yaml").read_text(encoding="utf-8"))
    pairs = []
    for language in wanted:
        patterns, topics = material["patterns"][language], material["topics"][language]
        # The pattern moves on with each topic, and by one more with each round of topics: no pair comes twice.
        rounds = [(topic, patterns[(place + turn) % len(patterns)]) for turn in range(len(patterns)) for place, topic in enumerate(topics)]
        pairs.append([(language, pattern.replace("{topic}", topic)) for topic, pattern in rounds])
    return [pair for row in zip(*pairs, strict=True) for pair in row][:count]


def write_answers(model: LocalModel, base: Base, settings: ReplaySettings, languages: Iterable[str], *, folder: Path, progress: Progress) -> list[Answered]:
    """Return the base model's answers to `settings.written` general questions.

    They are kept in `folder` under a name that says base model, template, questions and settings: they are written once, by the first
    training that needs them, and an interrupted one goes on where it was; the files of the last few base models and settings stay. Empty answers are left out.
    """
    prompts = general_prompts(settings.written, languages)
    sampling = GenerationSettings(max_new_tokens=settings.max_new_tokens, temperature=_TEMPERATURE, top_p=0.95)
    key = digest_of({"base": base.digest, "template": model.chat.digest, "prompts": prompts, "max_new_tokens": settings.max_new_tokens})
    path = folder / f"{key[:32]}.jsonl"
    progress.start(_TASK, len(prompts), "answers")
    # Trainings beside each other need the same answers: one of them writes, the others wait and read.
    with holding(path), path.open("ab") as stream:
        known = _read(path, len(prompts))
        progress.advance(_TASK, len(known))
        # Whole batches alone are kept, and each has its own seed: where a run was interrupted makes no difference.
        for start in range(len(known), len(prompts), _BATCH):
            batch = prompts[start : start + _BATCH]
            asked = [(Message("user", prompt),) for _, prompt in batch]
            own = GenerationSettings(sampling.max_new_tokens, sampling.temperature, sampling.top_p, seed=start)
            written = model.generate(asked, own, progress=progress, task=_TASK)
            fresh = [Answered(language, prompt, one.text, one.finish == "stop") for (language, prompt), one in zip(batch, written, strict=True)]
            stream.write(b"".join(canonical_json(_row(item)) + b"\n" for item in fresh))
            stream.flush()
            os.fsync(stream.fileno())
            known += fresh
    progress.finish(_TASK)
    return [item for item in known[: len(prompts)] if item.answer.strip()]


def _row(item: Answered) -> dict[str, Any]:
    return {"language": item.language, "prompt": item.prompt, "answer": item.answer, "ended": item.ended}


def _read(path: Path, count: int) -> list[Answered]:
    """Return the whole batches of a file, of at most `count` answers, and cut off what a kill left of another."""
    if not path.exists():
        return []
    data = path.read_bytes()
    lines = [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
    whole = lines if len(lines) == count else lines[: len(lines) // _BATCH * _BATCH]
    if (size := sum(map(len, whole))) < len(data):
        os.truncate(path, size)
    return [Answered(**json.loads(line)) for line in whole]


def encode_written(answers: Sequence[Answered], chat: Chat, maximum: int) -> Examples:
    """Return the answers that fit as examples. One that was cut at its largest length is learnt without its end."""
    with Collector() as found:
        for item in answers:
            messages = (Message("user", item.prompt), Message("assistant", item.answer, learn=True))
            encoded = chat.encode(messages)
            encoded = encoded if item.ended else _without_end(encoded)
            if len(encoded) <= maximum and any(encoded.learn[1:]):
                record = Record(id="", messages=messages, task=_TASK, domain="general", language=item.language)
                found.take(replace(record, id=identify(record)), encoded, source=WRITTEN)
    return found.collected()


def _without_end(encoded: Encoded) -> Encoded:
    last = max(place for place, learn in enumerate(encoded.learn) if learn)
    return Encoded(encoded.tokens[:last], encoded.learn[:last])
