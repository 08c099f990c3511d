"""What goes together in a training and what does not: data, read before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from metier.models.methods import METHODS
from metier.training.settings import ObjectiveSettings, ReplaySettings, TrainingSettings

__all__ = ["UNLABELLED", "UNSHARED", "WHOLE_FIRST", "Unlabelled", "Unshared", "unlabelled", "unlabelled_keys", "unshared", "whole_first"]


@dataclass(frozen=True, slots=True)
class Unshared:
    """Something that needs whole weights: the key that asks for it, whether settings do, why it cannot be, and the nearest thing that can."""

    key: str
    asked: Callable[[TrainingSettings], bool]
    why: str
    instead: str


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """A key of an objective, or of `training:`, that has no meaning where labels are taught: why, and the nearest thing that has."""

    key: str
    asked: Callable[[Any], Any]
    why: str
    instead: str


UNLABELLED: tuple[Unlabelled, ...] = (
    Unlabelled(
        "kl",
        lambda objectives: objectives.kl,
        "a base model, encoder or decoder, has no distribution over labels to stay near: the head begins at random",
        "set `start`, which holds the weights, or `ewc`, which holds those that general examples (replay.records) hang on",
    ),
    Unlabelled("written", lambda replay: replay.written, "a base model writes answers, and no labels", "name labelled records: replay.records"),
    Unlabelled(
        "max_new_tokens",
        lambda replay: replay.max_new_tokens != ReplaySettings().max_new_tokens,
        "a base model writes answers, and no labels",
        "take it out",
    ),
)
"""`objectives.start`, `objectives.ewc` and `replay.share` go with labels as with answers, by the same methods."""


def unlabelled(given: ObjectiveSettings | ReplaySettings) -> list[Unlabelled]:
    """Return what of some objectives, or of `replay`, has no meaning where labels are taught."""
    return [item for item in UNLABELLED if item.key in type(given).model_fields and item.asked(given)]


def unlabelled_keys(settings: TrainingSettings) -> list[str]:
    """Return, for everything that a training of labels asks for and that has no meaning there, what it is, why, and what to write instead."""
    if settings.task == "generation":
        return []
    places: dict[str, ObjectiveSettings | ReplaySettings] = {"objectives": settings.objectives, "replay": settings.replay}
    places |= {f"stages: {stage.name}: objectives": stage.objectives for stage in settings.stages if stage.objectives is not None}
    return [
        f"training.{place}.{item.key} does not go with the task {settings.task}: {item.why}\n    -> {item.instead}"
        for place, given in places.items()
        for item in unlabelled(given)
    ]


_WHOLE = "engine.distribution: replicated"

_NEAR = "training.objectives.kl"

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
    Unshared("training.objectives.ewc", lambda settings: _any(settings, lambda given: given.ewc), "it weighs whole layers", _NEAR),
    Unshared("training.objectives.start", lambda settings: _any(settings, lambda given: given.start), "it multiplies whole layers", _NEAR),
    Unshared("training.adaptation.joint", lambda settings: bool(settings.adaptation.joint.projects), "each project takes its part out of the whole", _WHOLE),
    Unshared(
        "training.validation.tasks", lambda settings: bool(settings.validation.tasks), "answers are written token by token", "training.validation.by: loss"
    ),
    Unshared("training.privacy.epsilon", lambda settings: settings.privacy.epsilon is not None, "each person's whole gradient is clipped by itself", _WHOLE),
)
"""Whatever is not here works with weights that are shared out: every other method, answers and labels alike, packed rows, other objectives, replay, stages."""


WHOLE_FIRST: tuple[tuple[str, Callable[[TrainingSettings], bool], str], ...] = (
    *(
        (f"training.method: {name}", partial(_by, name), "virtual tokens begin as what the base model makes of tokens")
        for name, facts in METHODS.items()
        if facts.family == "virtual"
    ),
    ("training.adaptation.allocate: sensitivity", lambda settings: settings.adaptation.allocate != "even", "ranks follow from gradients of the base model"),
    ("training.replay.written", lambda settings: settings.replay.written > 0, "the base model answers before it is trained"),
)
"""What goes with weights that are shared out, but needs the base model at work before: every process loads it whole first."""


def whole_first(settings: TrainingSettings) -> list[str]:
    """Return why every process of a training loads the base model whole before its weights are shared out; nothing: each reads its share alone."""
    return [f"{key}: {why}" for key, asked, why in WHOLE_FIRST if asked(settings)]


def unshared(settings: TrainingSettings) -> list[str]:
    """Return, for everything that a training asks for and that needs whole weights, what it is and the nearest thing that does not."""
    said = []
    for item in UNSHARED:
        if item.asked(settings):
            # Labels know no divergence from the base model.
            alone = item.instead == _WHOLE or (item.instead == _NEAR and settings.task != "generation")
            remedy = _WHOLE if alone else f"{item.instead}, or {_WHOLE}"
            said.append(f"`engine.distribution: sharded` does not go with `{item.key}`: {item.why}\n    -> write {remedy}")
    return said
