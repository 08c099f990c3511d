"""When a trial is given up: a function of its own validations and of the trials it may know of, so that it is the same after an interruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from metier.training.sweep.space import Space
from metier.training.sweep.trials import Trial, frozen, optuna, study_of

__all__ = ["Rule"]

_GOES_ON = 3
"""Hyperband: one trial in this many goes on at each halving; the default of Li et al."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a trial is judged: `known` are the trials it may be compared with, `times` the validations of a whole training."""

    kind: Literal["median", "hyperband", "none"]
    space: Space
    values: Mapping[str, Any]
    known: tuple[Trial, ...]
    times: int
    warmup: int

    def judge(self, number: int, course: Sequence[float]) -> str | None:
        """Return why trial `number` is given up after these validations, None if it goes on; `course` is what they measured (see `Trial.course`).

        median: from the middle of the training on, if its best so far is worse than the median of what complete trials had at the same
        validation. Only trials of its own size or a smaller one count: a small rank learns more slowly, and is wanted for being small.
        hyperband: successive halving in brackets (Li et al. 2018, JMLR 18(185)).
        """
        if self.kind == "none":
            return None
        pruners = optuna("pruners")
        if self.kind == "median":
            pruner = pruners.MedianPruner(n_startup_trials=self.warmup, n_warmup_steps=(self.times + 1) // 2)
        else:
            pruner = pruners.HyperbandPruner(min_resource=1, max_resource=self.times, reduction_factor=_GOES_ON)
        study = study_of(self.space, (), pruner=pruner)
        for trial in [trial for trial in self.known if self.kind != "median" or self._as_small(trial.values)]:
            self._replay(study, trial.number, trial.values, trial.course)
            made = frozen(self.space, trial)
            study._storage.set_trial_state_values(study.trials[-1]._trial_id, state=made.state, values=made.values)
        if not self._replay(study, number, self.values, course):
            return None
        place = f"at validation {len(course)} of {self.times}"
        return f"worse than the median of trials no larger {place}" if self.kind == "median" else f"outside the best third {place}"

    def _as_small(self, values: Mapping[str, Any]) -> bool:
        """Return whether a trial trains a part that is no larger."""
        theirs, ours = (found.get(self.space.size or "") for found in (values, self.values))
        return not isinstance(theirs, int) or not isinstance(ours, int) or theirs <= ours

    def _replay(self, study: Any, number: int, values: Mapping[str, Any], course: Sequence[float]) -> bool:
        """Tell a study the validations of a trial one after the other, for Hyperband keeps what it saw; return its last verdict."""
        study.add_trial(frozen(self.space, Trial(number, values)))
        place, verdict = study.trials[-1]._trial_id, False
        for validation, value in enumerate(course, 1):
            study._storage.set_trial_intermediate_value(place, validation, value)
            ours = study._storage.get_trial(place)
            ours.number = number  # which bracket of Hyperband it is in
            verdict = study.pruner.prune(study, ours)
        return verdict
