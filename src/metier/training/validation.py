"""Settings of the validation: how often it is measured on the way, on how much, and what is better."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metier.config import Settings

__all__ = ["ValidationSettings"]


class ValidationSettings(Settings):
    """How the validation split is used while training."""

    times: int = Field(default=4, ge=0)
    """How often the validation loss is measured, evenly spread; 0 turns it and early stopping off."""
    limit: int = Field(default=128, ge=1)
    """At most this many validation examples, chosen by their id."""
    patience: int = Field(default=2, ge=1)
    """Training stops after this many measurements in a row without a better one; the best adapter is kept."""
    by: Literal["loss", "score"] = "loss"
    """What is better: a lower loss (and with it a lower perplexity); or a better score: of labels and spans F1 (the labels' mean; of spans exact
    ones), of answers what `tasks` measure."""
    tasks: tuple[str, ...] = ()
    """Answers, by score: tasks of the pack, or task files, whose questions about validation records are answered at every measurement, `limit` of each
    task and language; the score is the mean over the tasks."""
    metric: str | None = None
    """Answers, by score: which metric of the tasks; none: the first of each."""

    def check(self, task: str) -> None:
        """Raise ValueError for a score that there cannot be of what is taught (`training.task`), and for what no score would read."""
        if self.by == "score" and task in ("regression", "pair"):
            raise ValueError(f"validation.by: score is for answers, labels and spans, and {task} has none of them\n    -> take it out")
        if self.by == "score" and not self.times:
            raise ValueError("validation.by: score says which measurement is best, and validation.times is 0\n    -> take one of them out")
        answers = self.by == "score" and task == "generation"
        if answers and not self.tasks:
            raise ValueError("validation.by: score: nothing says what is asked\n    -> name tasks of the pack, or task files, under validation.tasks")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task stands twice under validation.tasks\n    -> keep one of each")
        unread = [f"validation.{key}" for key, found in (("tasks", self.tasks), ("metric", self.metric)) if found and not answers]
        if unread:
            why = "validation.by is loss" if self.by == "loss" else f"{task} is scored by F1"
            raise ValueError(f"nothing reads {' and '.join(unread)}: {why}\n    -> take it out, or set validation.by: score for answers")
