"""What a run says of a training that has ended, whatever was taught."""

from __future__ import annotations

from typing import Any

from metier.models import Base
from metier.training.environment import environment_of, peak_memory
from metier.training.trainer import Trainer

__all__ = ["facts_of", "named"]


def facts_of(trainer: Trainer) -> dict[str, Any]:
    """Return counts, losses, stages, what it cost (seconds, tokens a second, bytes) and where it ran, as JSON values."""
    position = trainer.position
    ended = [*position.ended, trainer.stage_ended()]
    return {
        "examples": len(trainer.course.taught),
        "steps": len(trainer.losses),
        "stages": [{key: value for key, value in stage.items() if key != "validation_by_group"} for stage in ended] if trainer.settings.stages else [],
        "interference": [
            {"stage": stage["name"], "task": group, "before": before, "after": after, "change": after - before}
            for stage in ended
            for group, (before, after) in stage["validation_by_group"].items()
        ],
        "unused_examples": trainer.course.unused,
        "stopped_early": any(stage["stopped_early"] for stage in ended),
        "best_step": position.best_step,
        "final_loss": trainer.losses[-1],
        "validation_loss": position.best_loss,
        "validation_score": position.best_score,
        "privacy": None if trainer.private is None else trainer.private.promise.guarantee.as_facts() | {"unusable_draws": trainer.unusable},
        "alarms": trainer.alarms,
        "trainable_parameters": trainer.trainable,
        "tokens": position.tokens,
        "seconds": round(position.seconds, 3),
        "tokens_per_second": round(position.tokens / position.seconds, 2),
        "peak_memory_bytes": peak_memory(),
        "environment": environment_of(trainer.accelerator) | {"distribution": "sharded" if trainer.weights.collective else "replicated"},
    } | ({} if trainer.judge is None else {"pruned": trainer.pruned})


def named(model: Base) -> dict[str, str]:
    """Return what is said of a model: name, digest and licence."""
    return {"name": model.name, "digest": model.digest, "licence": model.licence}
