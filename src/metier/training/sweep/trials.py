"""A trial: the settings it tries and what came of it. The record of all of them is a journal of Optuna, which only the sweep itself writes.

Optuna's journal is lines of JSON: a killed process leaves at most half a line, which is cut off when the journal is opened again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from metier.errors import MissingExtra
from metier.store import whole_lines
from metier.training.sweep.space import Choices, Space

__all__ = ["Journal", "State", "Trial", "distributions", "failed", "frozen", "optuna", "study_of"]

State: TypeAlias = Literal["running", "complete", "pruned", "failed"]

_STUDY = "sweep"
_SETTINGS, _OUTCOME = "settings", "outcome"


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried, by searched key, and the outcome: None while it runs (see `metier.training.sweep.job.run_trial`)."""

    number: int
    values: Mapping[str, Any]
    outcome: Mapping[str, Any] | None = None

    @property
    def state(self) -> State:
        """How far it came."""
        return "running" if self.outcome is None else self.outcome["state"]

    @property
    def course(self) -> Sequence[float]:
        """What each validation measured of what trials are compared by, in order, as far as it has ended."""
        return () if self.outcome is None else self.outcome["course"]

    @property
    def value(self) -> float | None:
        """What trials are compared by, of what was kept; None if there is none."""
        return None if self.outcome is None else self.outcome["value"]

    @property
    def examples(self) -> Sequence[tuple[float, int]]:
        """What the standard error is made of (see `metier.training.sweep.job.run_trial`); empty where the trial is not complete."""
        return () if self.outcome is None else [(total, count) for total, count in self.outcome["examples"]]


def failed(reason: str) -> dict[str, Any]:
    """Return the outcome of a trial that failed."""
    nothing: dict[str, Any] = {"value": None, "course": [], "examples": [], "loss": None, "losses": []}
    return {"state": "failed", "reason": reason, **nothing, "seconds": None, "trainable_parameters": None, "effective": {}}


def optuna(part: str = "") -> Any:
    """Return Optuna or one of its modules, quiet. Raises MissingExtra if it is not installed."""
    try:
        package = import_module("optuna")
    except ImportError:
        raise MissingExtra("optuna", "sweep", "metier sweep") from None
    package.logging.set_verbosity(package.logging.WARNING)
    return import_module(f"optuna.{part}") if part else package


def distributions(space: Space) -> dict[str, Any]:
    """Return Optuna's distributions by key. Of a list the place is drawn: of numbers as a number, so that near ones count as alike."""
    kinds = optuna("distributions")
    found = {}
    for part in space.parts:
        if isinstance(part, Choices):
            places = len(part.values)
            found[part.key] = kinds.IntDistribution(0, places - 1) if part.ordered else kinds.CategoricalDistribution(tuple(range(places)))
        elif part.whole:
            found[part.key] = kinds.IntDistribution(int(part.low), int(part.high), log=part.log)
        else:
            found[part.key] = kinds.FloatDistribution(part.low, part.high, log=part.log)
    return found


def _drawn(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as Optuna holds them."""
    return {part.key: part.values.index(values[part.key]) if isinstance(part, Choices) else values[part.key] for part in space.parts}


def frozen(space: Space, trial: Trial) -> Any:
    """Return a trial as Optuna's own. Its intermediate values are those of the validations by their number, from 1: trials differ in their steps."""
    states = optuna("trial").TrialState
    outcome = trial.outcome or {}
    complete = trial.state == "complete"
    return optuna("trial").create_trial(
        state={"running": states.RUNNING, "complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[trial.state],
        value=outcome["value"] if complete else None,
        params=_drawn(space, trial.values),
        distributions=distributions(space),
        intermediate_values=dict(enumerate(trial.course, 1)),
        user_attrs={_SETTINGS: dict(trial.values)},
    )


class Journal:
    """The trials of one sweep on the disk. One process writes it, which holds the project."""

    def __init__(self, path: Path, space: Space) -> None:
        self._space = space
        whole_lines(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}.lock").unlink()  # left by a process that was killed: the project's own lock says that none writes now
        journal = optuna("storages.journal")
        backend = journal.JournalFileBackend(str(path), lock_obj=journal.JournalFileOpenLock(str(path)))
        storage = optuna("storages").JournalStorage(backend)
        self._study = optuna().create_study(storage=storage, study_name=_STUDY, direction=space.by.direction, load_if_exists=True)

    def trials(self) -> list[Trial]:
        """Return the trials in order; those that were under way have no outcome."""
        found = self._study.get_trials(deepcopy=False)
        return [Trial(item.number, item.user_attrs[_SETTINGS], item.user_attrs[_OUTCOME] if item.state.is_finished() else None) for item in found]

    def begin(self, trial: Trial) -> None:
        """Note that a trial begins. Trials begin in the order of their numbers."""
        self._study.add_trial(frozen(self._space, trial))

    def end(self, trial: Trial) -> None:
        """Note what came of a trial. Its state is written last: one that is stopped before it is still under way."""
        storage, number = self._study._storage, self._study.get_trials(deepcopy=False)[trial.number]._trial_id
        made = frozen(self._space, trial)
        for place, value in made.intermediate_values.items():
            storage.set_trial_intermediate_value(number, place, value)
        storage.set_trial_user_attr(number, _OUTCOME, dict(trial.outcome or {}))
        storage.set_trial_state_values(number, state=made.state, values=made.values)


def study_of(space: Space, trials: Sequence[Trial], **parts: Any) -> Any:
    """Return a study in memory that knows these trials alone; `parts` are its sampler and pruner."""
    study = optuna().create_study(study_name=_STUDY, direction=space.by.direction, **parts)
    study.add_trials([frozen(space, trial) for trial in trials])
    return study
