"""Settings of the evaluation."""

from __future__ import annotations

from pydantic import Field, model_validator

from metier.config import Settings

__all__ = ["EvaluationSettings"]


class EvaluationSettings(Settings):
    """What is asked of the base model and of the tuned one, and how sure the answer has to be."""

    tasks: tuple[str, ...] = Field(default=("pack", "held-out", "retention"), min_length=1)
    """`pack`: every task of the pack; `held-out`: how likely the reference answers are; `retention`: general ability;
    or the name of one pack task, or the path of a task file (.yaml, lm-eval's keys) below the project folder."""
    limit: int = Field(default=200, ge=1)
    """Items per task and language; a larger task is sampled by the hash of its items, the same ones every time."""
    free_text_limit: int = Field(default=40, ge=0)
    """Test records per language whose answer is also written out and compared with the reference (`held-out`); 0: none."""
    retention_items: int = Field(default=160, ge=20, le=1000)
    """Items of the retention probe, spread over its families and both languages."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer, in tokens, unless a task says otherwise (`generation_kwargs: {max_gen_toks: ...}`)."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples behind each interval."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals, and 1 - level is the error that the verdicts allow over all tasks together."""
    seed: int = 0
    """Seed of the samples, the resamples and the retention probe."""
    batch: int = Field(default=32, ge=1)
    """Items asked between two writes: what an interruption can lose."""
    question: str | None = None
    """A question that both models answer in the report, for the eye only."""
    examples: int = Field(default=6, ge=0)
    """Examples per task that the report shows."""

    @model_validator(mode="after")
    def _tasks_stand_once(self) -> EvaluationSettings:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task stands twice under `tasks`; keep one of each")
        return self
