"""Stages: which examples each learns from, in which order, by which settings. A training without stages is one stage with everything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from metier.errors import Fault, InputError
from metier.proportions import apportion, shares
from metier.training.batches import WRITTEN, Examples, Origin, order, pack
from metier.training.settings import SelectionSettings, ShareSettings, StageSettings, TrainingSettings

__all__ = ["Course", "Plan", "Stage", "general_of", "plan_course", "plan_steps"]

_FIELDS = ("task", "domain", "language", "source")
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """Which examples each optimiser step sees: `steps[i]` is a list of packed rows of example indices."""

    steps: tuple[tuple[tuple[int, ...], ...], ...]
    steps_an_epoch: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its settings with its own in the place of the training's, its examples and validation examples, and its steps."""

    name: str
    settings: TrainingSettings
    chosen: tuple[int, ...]
    checks: tuple[int, ...]
    plan: Plan
    start: int
    """Steps of the stages before it."""

    @property
    def end(self) -> int:
        """Steps of the training up to its end."""
        return self.start + len(self.plan.steps)


@dataclass(frozen=True, slots=True)
class Course:
    """What is learnt from, what is measured on, and the stages."""

    taught: Examples
    checks: Examples
    stages: tuple[Stage, ...]

    @property
    def plan(self) -> Plan:
        """The steps of all stages, one after the other."""
        return Plan(tuple(step for stage in self.stages for step in stage.plan.steps), self.stages[0].plan.steps_an_epoch)

    @property
    def unused(self) -> int:
        """How many examples no stage learns from."""
        read = {index for step in self.plan.steps for row in step for index in row}
        # What the base model wrote for a penalty alone was never meant to be learnt, and part of an epoch leaves out what more epochs would reach.
        meant = read | {index for stage in self.stages for index in stage.chosen}
        return sum(1 for place, origin in enumerate(self.taught.origins) if place not in meant and origin.source != WRITTEN)


def general_of(taught: Examples, settings: TrainingSettings) -> list[int]:
    """Return the places of the general examples: the dataset's, and those that the base model wrote."""
    described = settings.replay.records
    fitting = set(_fitting(taught.origins, described)) if described != SelectionSettings() else set()
    return [place for place, origin in enumerate(taught.origins) if place in fitting or origin.source == WRITTEN]


def plan_course(taught: Examples, checks: Examples, settings: TrainingSettings, *, coming: bool = False) -> Course:
    """Return the course of a training: a function of the examples, the seed and the settings alone.

    A stage is measured on the validation examples that its records' description fits, on all of them if it fits none. Raises InputError
    for stages without examples, for weights of groups that are not there and for a use of general examples where there are none, all faults at
    once; `coming`: the base model will have written some by the time of training.
    """
    found: list[Stage] = []
    faults: list[Fault] = []
    general = general_of(taught, settings)
    if not general and not coming:
        faults.extend(_nothing_general(settings))
    apart = {place for place in general if settings.replay.share or taught.origins[place].source == WRITTEN}
    for number, own in enumerate(settings.stages or (StageSettings(name="training", epochs=settings.epochs),)):
        key = f"training.stages.{number}"
        chosen = tuple(place for place in _fitting(taught.origins, own.records) if place not in apart)
        if not chosen:
            faults.append(_empty(own, key, taught.origins))
            continue
        start = found[-1].end if found else 0
        here = _settings_of(own, settings)
        try:
            plan = plan_steps(taught, here, chosen=chosen, shared=own.shares, general=general, number=number)
        except InputError as error:
            faults.extend(error.faults)
            continue
        found.append(Stage(own.name, here, chosen, _fitting(checks.origins, own.records) or tuple(range(len(checks.origins))), plan, start))
    if faults:
        raise InputError(faults)
    return Course(taught, checks, tuple(found))


def _nothing_general(settings: TrainingSettings) -> Iterator[Fault]:
    remedy = "set training.replay.written, so that the base model writes some, or correct training.replay.records"
    if settings.replay.share:
        yield Fault("no training example is general, so none can be replayed", key="training.replay.share", remedy=remedy)
    if settings.objectives.ewc or any(stage.objectives is not None and stage.objectives.ewc for stage in settings.stages):
        yield Fault("no training example is general, so nothing says which weights matter", key="training.objectives.ewc", remedy=remedy)


def plan_steps(
    taught: Examples,
    settings: TrainingSettings,
    *,
    chosen: Sequence[int] | None = None,
    shared: ShareSettings | None = None,
    general: Sequence[int] = (),
    number: int = 0,
) -> Plan:
    """Return the steps of one stage, the `number`-th, over the `chosen` examples (default: all), with their share of `general` ones."""
    chosen = range(len(taught.examples)) if chosen is None else chosen
    lengths = [len(example) for example in taught.examples]
    epochs = math.ceil(settings.epochs)
    mixed = shared is not None and shared != ShareSettings()
    drawn = _drawn(taught.origins, chosen, shared, (settings.seed, number), epochs) if shared is not None and mixed else None
    share = settings.replay.share
    replayed, stream = round(len(chosen) * share / (1 - share)) if general else 0, _Stream(general, (settings.seed, number, "replay"))
    steps: list[tuple[tuple[int, ...], ...]] = []
    first_epoch = 0
    for epoch in range(epochs):
        if settings.batch.order == "dataset":
            # Packing closes rows as they fill; a row stands where its first example does.
            rows = sorted(pack(lengths, chosen, settings.batch.row_tokens), key=lambda row: row[0])
        else:
            seen = [*(chosen if drawn is None else drawn[epoch]), *stream.take(replayed)]
            # The first stage is drawn as a training without stages is.
            places = order(len(seen), settings.seed, epoch, *([number] if number else []))
            rows = pack(lengths, [seen[place] for place in places], settings.batch.row_tokens)
        wanted = math.ceil(len(rows) * min(1.0, settings.epochs - epoch))
        window = settings.batch.rows
        steps.extend(tuple(tuple(row) for row in rows[start : min(start + window, wanted)]) for start in range(0, wanted, window))
        first_epoch = first_epoch or len(steps)
    return Plan(tuple(steps), max(1, first_epoch))


def _settings_of(own: StageSettings, settings: TrainingSettings) -> TrainingSettings:
    """Return the training's settings with a stage's own in their place."""
    changes: dict[str, object] = {"epochs": own.epochs, "stages": ()}
    changes |= {name: value for name in ("learning_rate", "objectives", "optimizer") if (value := getattr(own, name)) is not None}
    if own.dropout is not None:
        changes["adaptation"] = settings.adaptation.model_copy(update={"dropout": own.dropout})
    return settings.model_copy(update=changes)


def _fitting(origins: Sequence[Origin], wanted: SelectionSettings) -> tuple[int, ...]:
    given = [(name, patterns) for name in _FIELDS if (patterns := getattr(wanted, name))]
    return tuple(place for place, origin in enumerate(origins) if all(_fits(getattr(origin, name), patterns) for name, patterns in given))


def _fits(value: str, patterns: Sequence[str]) -> bool:
    return any(value == pattern or fnmatchcase(value, pattern) for pattern in patterns)


def _empty(own: StageSettings, key: str, origins: Sequence[Origin]) -> Fault:
    """Return what is wrong with a stage that no example fits, and which values there are."""
    there = []
    for name in _FIELDS:
        if getattr(own.records, name):
            values = sorted({getattr(origin, name) for origin in origins})
            there.append(f"{name}: {', '.join(values[:_SHOWN])}{' ...' if len(values) > _SHOWN else ''}")
    return Fault(f"no training example fits the stage {own.name!r}", key=f"{key}.records", remedy=f"there are {'; '.join(there)}")


def _drawn(origins: Sequence[Origin], chosen: Sequence[int], shared: ShareSettings, key: tuple[int, int], epochs: int) -> list[list[int]]:
    """Return the examples of each epoch: as many as are chosen, by the groups' shares. A group goes through all of its own before it repeats one."""
    groups: dict[str, list[int]] = {}
    for index in chosen:
        groups.setdefault(getattr(origins[index], shared.by), []).append(index)
    place = f"training.stages.{key[1]}.shares"
    wanted = shares({name: len(found) for name, found in sorted(groups.items())}, alpha=shared.alpha, weights=shared.weights, key=place)
    streams = {name: _Stream(found, (*key, name)) for name, found in groups.items()}
    # Whole numbers of all epochs together: what one epoch rounds away the next one gives back.
    taken = dict.fromkeys(groups, 0)
    drawn = []
    for epoch in range(1, epochs + 1):
        upto = apportion(epoch * len(chosen), wanted)
        drawn.append([index for name in sorted(groups) for index in streams[name].take(max(0, upto[name] - taken[name]))])
        taken = {name: max(taken[name], upto[name]) for name in groups}
    return drawn


class _Stream:
    """The examples of a group, in a new order each time they have all been seen."""

    def __init__(self, members: Sequence[int], key: tuple[object, ...]) -> None:
        self._members, self._key, self._passes = members, key, 0
        self._waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """Return the next examples."""
        while len(self._waiting) < count:
            self._waiting += [self._members[place] for place in order(len(self._members), *self._key, self._passes)]
            self._passes += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
