"""What a training can do where its weights are shared out over processes: data, read before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from metier.models.methods import METHODS
from metier.training.settings import ObjectiveSettings, TrainingSettings

__all__ = ["UNSHARED", "Unshared", "unshared"]


@dataclass(frozen=True, slots=True)
class Unshared:
    """Something that needs whole weights: the key that asks for it, whether settings do, why it cannot be, and the nearest thing that can."""

    key: str
    asked: Callable[[TrainingSettings], bool]
    why: str
    instead: str


_WHOLE = "engine.distribution: replicated"

_WHY: Mapping[str, str] = {
    "qlora": "packed weights stay whole in every process",
    "adalora": "its ranks are shared out by looking at all layers at once",
    "gated-lora": "a gate is one number, which cannot be cut up",
}


def _by(method: str, settings: TrainingSettings) -> bool:
    return settings.taught_by == method


def _any(settings: TrainingSettings, asked: Callable[[ObjectiveSettings], float]) -> bool:
    stages = [stage.objectives for stage in settings.stages if stage.objectives is not None]
    return any(asked(given) for given in (settings.objectives, *stages))


UNSHARED: tuple[Unshared, ...] = (
    *(Unshared(f"training.method: {name}", partial(_by, name), _WHY[name], "training.method: lora") for name, facts in METHODS.items() if not facts.shards),
    Unshared("training.objectives.ewc", lambda settings: _any(settings, lambda given: given.ewc), "it weighs whole layers", "training.objectives.kl"),
    Unshared("training.objectives.start", lambda settings: _any(settings, lambda given: given.start), "it multiplies whole layers", "training.objectives.kl"),
    Unshared("training.adaptation.joint", lambda settings: bool(settings.adaptation.joint.projects), "each project takes its part out of the whole", _WHOLE),
    Unshared(
        "training.validation.tasks", lambda settings: bool(settings.validation.tasks), "answers are written token by token", "training.validation.by: loss"
    ),
    Unshared("training.privacy.epsilon", lambda settings: settings.privacy.epsilon is not None, "each person's whole gradient is clipped by itself", _WHOLE),
)
"""Whatever is not here works with weights that are shared out: every other method, answers and labels alike, packed rows, other objectives, replay, stages."""


def unshared(settings: TrainingSettings) -> list[str]:
    """Return, for everything that a training asks for and that needs whole weights, what it is and the nearest thing that does not."""
    said = []
    for item in UNSHARED:
        if item.asked(settings):
            remedy = item.instead if item.instead == _WHOLE else f"{item.instead}, or {_WHOLE}"
            said.append(f"`engine.distribution: sharded` does not go with `{item.key}`: {item.why}\n    -> write {remedy}")
    return said
