"""Which settings a trial tries: a function of the seed, its number and the trials before it, so that a stopped sweep goes on with the same ones."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from metier.digest import digest_of
from metier.training.sweep.settings import SweepSettings
from metier.training.sweep.space import Choices, Space
from metier.training.sweep.trials import Trial, distributions, optuna, study_of

__all__ = ["draw", "importance", "is_grid", "planned_trials", "settled"]

_AGAIN, _AT_RANDOM = 20, 200
_ENOUGH = 10
"""Finished trials from which on it is said which settings mattered."""


def is_grid(space: Space, sweep: SweepSettings) -> bool:
    """Return whether every combination is tried once, for there are no more of them than trials."""
    return space.combinations is not None and space.combinations <= sweep.trials


def planned_trials(space: Space, sweep: SweepSettings) -> int:
    """Return how many trials there will be."""
    return min(sweep.trials, space.combinations or sweep.trials)


def _seed(*parts: Any) -> int:
    return int(digest_of(list(parts))[:8], 16)


def draw(number: int, space: Space, sweep: SweepSettings, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what trial `number` tries, by key; `trials` are all before it, of which the last `parallel` - 1 count as not finished yet.

    On a grid the combinations come in an order drawn by the seed. Else the first trials are drawn at random and the others by a
    tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023, arXiv 2304.11127). A combination that was tried already is drawn again.
    """
    if is_grid(space, sweep):
        combinations = list(space.grid())
        random.Random(sweep.seed).shuffle(combinations)
        return combinations[number]
    known = [*settled(number, sweep, trials), *(replace(trial, outcome=None) for trial in trials[max(0, number - sweep.parallel + 1) : number])]
    tried = {_text(trial.values) for trial in trials[:number]}
    samplers, values = optuna("samplers"), {}
    for attempt in range(_AGAIN + _AT_RANDOM):
        seed = _seed(sweep.seed, number, attempt)
        first = min(_ENOUGH, 2 + 2 * len(space.parts))
        sampler = samplers.TPESampler(seed=seed, n_startup_trials=first) if attempt < _AGAIN else samplers.RandomSampler(seed=seed)
        drawn = study_of(space, known, sampler=sampler).ask(distributions(space)).params
        values = {part.key: part.values[drawn[part.key]] if isinstance(part, Choices) else part.rounded(drawn[part.key]) for part in space.parts}
        if _text(values) not in tried:
            break
    return values


def settled(number: int, sweep: SweepSettings, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that trial `number` may know of: with several at a time all but the last ones, whichever of these has ended by then."""
    return list(trials[: max(0, number - sweep.parallel + 1)])


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def importance(space: Space, trials: Sequence[Trial]) -> dict[str, float]:
    """Return the share of each key in the variance of what trials are compared by (functional ANOVA; Hutter et al. 2014), largest first.

    Empty below ten finished trials.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if len(complete) < _ENOUGH or len(space.parts) < 2 or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna("importance").FanovaImportanceEvaluator(seed=0)
    found = optuna("importance").get_param_importances(study_of(space, complete), evaluator=evaluator)
    return {key: float(value) for key, value in sorted(found.items(), key=lambda item: -item[1])}
