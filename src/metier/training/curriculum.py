"""Stages: which examples each learns from, in which order, by which settings. A training without stages is one stage with everything."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from metier.errors import Fault, InputError
from metier.proportions import apportion, shares
from metier.training.batches import WRITTEN, order, pack
from metier.training.checking import Checked
from metier.training.examples import GROUPS, Examples
from metier.training.settings import SelectionSettings, ShareSettings, StageSettings, TrainingSettings
from metier.training.steps import Step, Steps

__all__ = ["Course", "Plan", "Stage", "general_of", "plan_course", "plan_steps"]

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """Which examples each optimiser step sees: `steps[i]` is a list of packed rows of example indices."""

    steps: Steps
    steps_an_epoch: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its settings with its own in the place of the training's, its examples and validation examples, and its steps."""

    name: str
    settings: TrainingSettings
    chosen: Sequence[int]
    checks: Sequence[int]
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

    def measured(self, checked: Checked, stage: Stage) -> dict[str, Any]:
        """Return the validation loss in nats a learnt token, and its standard error, on the examples of a stage.

        Of a joint training it is the mean over the members that have validation examples, so that none is chosen for by its size; their own
        are `validation_by_member`, None for a member that has none.
        """
        members = [checked.at(places) if len(places) else None for places in self.checks.of_members]
        if not members:
            return {"validation_loss": checked.mean(stage.checks), "validation_error": checked.error(stage.checks)}
        found = [member for member in members if member is not None]
        return {
            "validation_loss": math.fsum(member.mean() for member in found) / len(found),
            "validation_error": math.hypot(*(member.error() for member in found)) / len(found),
            "validation_by_member": [None if member is None else member.mean() for member in members],
        }

    @property
    def plan(self) -> Plan:
        """The steps of all stages, one after the other."""
        if len(self.stages) == 1:
            return self.stages[0].plan
        return Plan(Steps(step for stage in self.stages for step in stage.plan.steps), self.stages[0].plan.steps_an_epoch)

    @property
    def unused(self) -> int:
        """How many examples no stage learns from; what the base model wrote for a penalty alone was never meant to be learnt."""
        unread = np.ones(len(self.taught), dtype=bool)
        unread[_written(self.taught)] = False
        # Part of an epoch leaves out what more epochs would reach: what is chosen counts as read.
        for places in chain.from_iterable((stage.chosen, stage.plan.steps.places) for stage in self.stages):
            unread[np.asarray(places, dtype=np.int64)] = False
        return int(unread.sum())


def _written(taught: Examples) -> np.ndarray[Any, Any]:
    return taught.fitting({"source": [WRITTEN]})


def general_of(taught: Examples, settings: TrainingSettings) -> list[int]:
    """Return the places of the general examples: the dataset's, and those that the base model wrote."""
    described = settings.replay.records
    fitting = _fitting(taught, described) if described != SelectionSettings() else ()
    return sorted({*fitting, *_written(taught).tolist()})


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
    apart = np.zeros(len(taught), dtype=bool)
    apart[general if settings.replay.share else _written(taught)] = True
    for number, own in enumerate(settings.stages or (StageSettings(name="training", epochs=settings.epochs),)):
        key = f"training.stages.{number}"
        fitting = np.asarray(_fitting(taught, own.records), dtype=np.int64)
        chosen = array("q", fitting[~apart[fitting]].tobytes())
        if not chosen:
            faults.append(_empty(own, key, taught))
            continue
        start = found[-1].end if found else 0
        here = _settings_of(own, settings)
        try:
            plan = plan_steps(
                taught, here, chosen=chosen, general=general, number=number, key="training.batch.shares" if own.shares is None else f"{key}.shares"
            )
        except InputError as error:
            faults.extend(error.faults)
            continue
        found.append(Stage(own.name, here, chosen, _fitting(checks, own.records) or range(len(checks)), plan, start))
    if faults:
        raise InputError(faults)
    return Course(taught, checks, tuple(found))


def _nothing_general(settings: TrainingSettings) -> Iterator[Fault]:
    remedy = "set training.replay.written, so that the base model writes some, or correct training.replay.records"
    if settings.task != "generation":
        remedy = "say in training.replay.records which labelled records are general"
    if settings.replay.share:
        yield Fault("no training example is general, so none can be replayed", key="training.replay.share", remedy=remedy)
    if settings.objectives.ewc or any(stage.objectives is not None and stage.objectives.ewc for stage in settings.stages):
        yield Fault("no training example is general, so nothing says which weights matter", key="training.objectives.ewc", remedy=remedy)


def plan_steps(
    taught: Examples,
    settings: TrainingSettings,
    *,
    chosen: Sequence[int] | None = None,
    general: Sequence[int] = (),
    number: int = 0,
    key: str = "training.batch.shares",
) -> Plan:
    """Return the steps of one stage, the `number`-th, over the `chosen` examples (default: all), with their share of `general` ones.

    `key` is where the groups' shares stand in the project file. Raises InputError for weights of groups that are not there.
    """
    chosen = range(len(taught)) if chosen is None else chosen
    lengths = array("i", taught.lengths.tobytes())
    shared, joint, drawn = settings.batch.shares, settings.adaptation.joint, None
    if taught.members and joint.alpha != 1:
        groups: dict[str, Any] = {str(member): np.asarray(places) for member, places in enumerate(taught.of_members)}
        drawn = _drawn(groups, chosen, ShareSettings(alpha=joint.alpha), settings, number, "training.adaptation.joint")
    elif shared != ShareSettings():
        drawn = _drawn(taught.groups(shared.by), chosen, shared, settings, number, key)
    share = settings.replay.share
    replayed, stream = round(len(chosen) * share / (1 - share)) if general else 0, _Stream(general, (settings.seed, number, "replay"))
    first_epoch = 0

    def epochs() -> Iterator[Step]:
        nonlocal first_epoch
        for epoch in range(math.ceil(settings.epochs)):
            if settings.batch.order == "dataset":
                # Packing closes rows as they fill; a row stands where its first example does.
                rows = sorted(pack(lengths, chosen, settings.batch.row_tokens), key=lambda row: row[0])
            else:
                seen = array("q", chosen if drawn is None else drawn[epoch])
                seen.extend(stream.take(replayed))
                # The first stage is drawn as a training without stages is.
                places = order(len(seen), settings.seed, epoch, *([number] if number else []))
                rows = list(pack(lengths, (seen[place] for place in places), settings.batch.row_tokens))
            wanted = math.ceil(len(rows) * min(1.0, settings.epochs - epoch))
            window = settings.batch.rows_of_step
            first_epoch = first_epoch or math.ceil(wanted / window)
            for start in range(0, wanted, window):
                yield tuple(tuple(row) for row in rows[start : min(start + window, wanted)])

    steps = Steps(epochs())
    return Plan(steps, max(1, first_epoch))


def _settings_of(own: StageSettings, settings: TrainingSettings) -> TrainingSettings:
    """Return the training's settings with a stage's own in their place."""
    changes: dict[str, object] = {"epochs": own.epochs, "stages": ()}
    changes |= {name: value for name in ("learning_rate", "objectives", "optimizer") if (value := getattr(own, name)) is not None}
    if own.dropout is not None:
        changes["adaptation"] = settings.adaptation.model_copy(update={"dropout": own.dropout})
    if own.shares is not None:
        changes["batch"] = settings.batch.model_copy(update={"shares": own.shares})
    return settings.model_copy(update=changes)


def _fitting(examples: Examples, wanted: SelectionSettings) -> array[int]:
    """Return the places of the examples that a description fits."""
    given = {name: patterns for name in GROUPS if (patterns := getattr(wanted, name))}
    return array("q", examples.fitting(given).tobytes())


def _empty(own: StageSettings, key: str, taught: Examples) -> Fault:
    """Return what is wrong with a stage that no example fits, and which values there are."""
    there = []
    for name in GROUPS:
        if getattr(own.records, name):
            values = sorted(taught.groups(name))
            there.append(f"{name}: {', '.join(values[:_SHOWN])}{' ...' if len(values) > _SHOWN else ''}")
    return Fault(f"no training example fits the stage {own.name!r}", key=f"{key}.records", remedy=f"there are {'; '.join(there)}")


def _drawn(
    groups_of_all: Mapping[str, np.ndarray[Any, Any]], chosen: Sequence[int], shared: ShareSettings, settings: TrainingSettings, number: int, key: str
) -> list[array[int]]:
    """Return the examples of each epoch: as many as are chosen, by the groups' shares. A group goes through all of its own before it repeats one."""
    here = np.asarray(chosen, dtype=np.int64)
    found = {name: np.intersect1d(places, here, assume_unique=True) for name, places in groups_of_all.items()}
    groups = {name: array("q", places.tobytes()) for name, places in found.items() if len(places)}
    wanted = shares({name: len(found) for name, found in sorted(groups.items())}, alpha=shared.alpha, weights=shared.weights, key=key)
    streams = {name: _Stream(found, (settings.seed, number, name)) for name, found in groups.items()}
    # Whole numbers of all epochs together: what one epoch rounds away the next one gives back.
    taken = dict.fromkeys(groups, 0)
    drawn = []
    for epoch in range(1, math.ceil(settings.epochs) + 1):
        upto = apportion(epoch * len(chosen), wanted)
        drawn.append(array("q", chain.from_iterable(streams[name].take(max(0, upto[name] - taken[name])) for name in sorted(groups))))
        taken = {name: max(taken[name], upto[name]) for name in groups}
    return drawn


class _Stream:
    """The examples of a group, in a new order each time they have all been seen."""

    def __init__(self, members: Sequence[int], key: tuple[object, ...]) -> None:
        self._members, self._key, self._passes = members, key, 0
        self._waiting: array[int] = array("q")

    def take(self, count: int) -> array[int]:
        """Return the next examples."""
        while len(self._waiting) < count:
            self._waiting.extend(self._members[place] for place in order(len(self._members), *self._key, self._passes))
            self._passes += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
