"""Asking a model a task's items, so that no finished item is ever asked twice: answers go to a file as they come."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from metier.digest import canonical_json, digest_of
from metier.errors import ModelError
from metier.evaluation.items import Answer, Item, Task
from metier.models.interface import GenerationSettings, LanguageModel
from metier.progress import SILENT, Progress
from metier.store import whole_lines

__all__ = ["Side", "answer_items", "ask"]

Side = Literal["base", "tuned"]

# Stands for the log of a probability of zero: JSON has no infinity.
_FLOOR = -1e9


def ask(model: LanguageModel, task: Task, side: Side, folder: Path, *, batch: int, progress: Progress = SILENT) -> dict[str, Answer]:
    """Return the answer to every item of a task, by item id.

    What `folder` holds of an earlier, interrupted attempt is taken over; the rest is asked in batches of similar length, each
    written and flushed to the disk before the next. A torn last line (a kill in the middle of a write) is cut off.
    """
    asked = [task.name, task.kind, task.max_new_tokens, task.stop, [[item.id, item.prompt_hash] for item in task.items]]
    path = folder / "answers" / side / f"{digest_of(asked)[:16]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = _finished(path, {item.id: item for item in task.items})
    waiting = sorted((item for item in task.items if item.id not in answers), key=lambda item: (_length(item), item.id))
    label = f"{task.name} ({side})"
    progress.start(label, len(task.items), "items")
    progress.advance(label, len(answers))
    with path.open("ab") as stream:
        for start in range(0, len(waiting), batch):
            group = waiting[start : start + batch]
            given = answer_items(model, task, group, progress, label)
            for item, answer in zip(group, given, strict=True):
                stream.write(canonical_json(answer.as_row(item)) + b"\n")
                answers[item.id] = answer
            stream.flush()
            os.fsync(stream.fileno())
    progress.finish(label)
    return answers


def _length(item: Item) -> int:
    return sum(len(message.content) for message in item.prompt) or sum(len(choice) for choice in item.choices)


def answer_items(model: LanguageModel, task: Task, items: Sequence[Item], progress: Progress, label: str) -> list[Answer]:
    """Return the model's answers to items of a task; `progress` is told of each under `label`. Raises ModelError for a model that gives no numbers."""
    prompts = [item.prompt for item in items]
    if task.kind == "generate":
        settings = GenerationSettings(max_new_tokens=task.max_new_tokens, stop=task.stop)
        return [Answer(one.text, one.tokens, one.finish) for one in model.generate(prompts, settings, progress=progress, task=label)]
    found = model.choose(prompts, [item.choices for item in items], progress=progress, task=label)
    return [Answer(likelihoods=tuple((_finite(one.log_probability), one.tokens) for one in row)) for row in found]


def _finite(log_probability: float) -> float:
    if math.isnan(log_probability):
        raise ModelError("the model's probabilities are not numbers (NaN)\n    -> the training diverged: lower training.learning_rate and train again")
    return max(log_probability, _FLOOR)


def _finished(path: Path, items: Mapping[str, Item]) -> dict[str, Answer]:
    """Return the answers in a file that were given to these very prompts, and cut the file off after its last whole line."""
    answers = {}
    for line in whole_lines(path):
        try:
            row = json.loads(line)
            item = items.get(row["item"])
            if item is not None and row["prompt_hash"] == item.prompt_hash:
                answers[item.id] = Answer.from_row(row)
        except (ValueError, KeyError, TypeError):
            continue
    return answers
