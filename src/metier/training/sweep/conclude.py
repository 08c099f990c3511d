"""What follows from the trials: the best one, the smallest size that does as well, and the lines for the project file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from metier.training.sweep.draw import importance
from metier.training.sweep.quantity import Quantity
from metier.training.sweep.space import Space
from metier.training.sweep.spread import paired_error, standard_error
from metier.training.sweep.trials import Trial

__all__ = ["conclude", "yaml_lines"]

_CLEAR = 2.0
"""Standard errors from which a paired difference is called clear (about 95 %)."""
_SEVERAL = 3
"""Complete trials of a size below which its best is called uncertain."""


@dataclass(frozen=True, slots=True)
class _Size:
    """The best of the complete trials of one size; `difference`: by how much it is worse than the best trial of all, with its standard error, over the
    same examples.
    """

    size: float
    trials: int
    trial: int
    value: float
    standard_error: float | None
    difference: float
    difference_error: float | None
    within: bool


def conclude(space: Space, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the findings as JSON values: what is compared, trials, best, recommended, curve, importance, sentences and the YAML lines for `training:`.

    Recommended is the smallest size within one standard error of the best trial (the rule of one standard error: Breiman et al.,
    Classification and Regression Trees, 1984, 3.4.3; Hastie et al., The Elements of Statistical Learning, 7.10); without a searched size, the
    best trial. Both are None if no trial is complete.
    """
    rows = [_row(trial) for trial in trials]
    complete = [trial for trial in trials if trial.state == "complete"]
    found: dict[str, Any] = {"compared": asdict(space.by), "trials": rows, "best": None, "recommended": None, "size": None}
    found |= {"curve": [], "importance": {}, "sentences": [], "yaml": ""}
    if not complete:
        return found
    best = _best(complete, space.by)
    error = standard_error(best.examples)
    key = space.size
    curve = [] if key is None else _curve(key, space.by, complete, best, error)
    chosen = next((trials[item.trial] for item in curve if item.within), best)
    return found | {
        "best": _row(best) | {"standard_error": error},
        "recommended": rows[chosen.number],
        "size": key,
        "curve": [asdict(item) for item in curve],
        "importance": importance(space, trials),
        "sentences": [*_sentences(key, space.by, curve, chosen, best, error), *_cautions(key, curve, trials)],
        "yaml": yaml_lines(chosen.values),
    }


def _cost(trial: Trial, by: Quantity) -> float:
    assert trial.value is not None, "a complete trial has a value"
    return by.cost(trial.value)


def _best(trials: Sequence[Trial], by: Quantity) -> Trial:
    """Return the best trial; of two with one score the one of the lower loss, which scores over a few records cannot tell apart, then the earlier one."""
    return min(trials, key=lambda trial: (_cost(trial, by), (trial.outcome or {}).get("loss", math.inf), trial.number))


def _row(trial: Trial) -> dict[str, Any]:
    kept = ("reason", "value", "course", "loss", "losses", "seconds", "trainable_parameters", "effective")
    return {"number": trial.number, "state": trial.state, "settings": dict(trial.values)} | {key: (trial.outcome or {}).get(key) for key in kept}


def _curve(key: str, by: Quantity, complete: Sequence[Trial], best: Trial, error: float | None) -> list[_Size]:
    """Return the best complete trial of each size, the smallest size first."""
    curve = []
    for size in sorted({trial.values[key] for trial in complete if trial.values[key] != "auto"}):
        alike = [trial for trial in complete if trial.values[key] == size]
        trial = _best(alike, by)
        difference = _cost(trial, by) - _cost(best, by)
        doubt = None if trial is best else paired_error(trial.examples, best.examples)
        within = trial is best or (error is not None and difference <= error)
        curve.append(_Size(size, len(alike), trial.number, by.cost(_cost(trial, by)), standard_error(trial.examples), difference, doubt, within))
    return curve


def _sentences(key: str | None, by: Quantity, curve: Sequence[_Size], chosen: Trial, best: Trial, error: float | None) -> list[str]:
    """Return the conclusion in words."""
    spread = "" if error is None else f", standard error {error:.4f}"
    found = [f"The best {by.name} is {by.shown(by.cost(_cost(best, by)))}{spread} (trial {best.number})."]
    if error is None:
        found.append("With fewer than two validation examples there is no standard error, so the best trial is taken.")
        return found
    if not error:
        found.append("No item does otherwise than the others there, so the standard error says nothing: more validation records would.")
    if key is None:
        found.append("No size of the trained part was searched, so the best trial is taken.")
    elif chosen is best:
        found.append(f"No smaller {_name(key)} than {best.values[key]} comes within one standard error of it.")
    else:
        place = next(item for item in curve if item.trial == chosen.number)
        within = f"The smallest {_name(key)} within one standard error of it is {place.size:g}, with {place.value:.4f} (trial {chosen.number})"
        found.append(f"{within}; the best has {best.values[key]}.")
        if place.difference_error is not None and place.difference > _CLEAR * place.difference_error:
            paired = f"{place.difference:.4f} with a standard error of {place.difference_error:.4f}"
            found.append(f"Example by example the best is clearly better all the same (by {paired}): take it if that counts more than size.")
    return found


def _cautions(key: str | None, curve: Sequence[_Size], trials: Sequence[Trial]) -> Iterator[str]:
    """Yield what the figures cannot show."""
    if key is not None:
        without = sorted({trial.values[key] for trial in trials if trial.values[key] != "auto"} - {item.size for item in curve})
        if without:
            yield f"No trial of {_name(key)} {', '.join(f'{size:g}' for size in without)} is complete, so nothing is said of it."
        if len(curve) > 1 and min(item.trials for item in curve) < _SEVERAL:
            yield f"A {_name(key)} with few complete trials may do better than its best one: the other settings differ from trial to trial."
    yield "The best of many trials looks better than it is: the test split, which no trial has seen, tells how good it is."


def _name(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def yaml_lines(values: Mapping[str, Any]) -> str:
    """Return settings as lines of a project file."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return yaml.safe_dump({"training": tree}, sort_keys=False, default_flow_style=None, allow_unicode=True, width=140)
