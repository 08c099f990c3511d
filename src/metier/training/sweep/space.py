"""What is searched: keys of `training:` with lists of values or ranges. Every fault is found before anything is loaded."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from metier.config import Document, Settings
from metier.errors import ConfigError, Fault, nearest
from metier.training.scoring import Scoring
from metier.training.settings import TrainingSettings
from metier.training.sweep.quantity import LOSS, Quantity, quantity_of
from metier.training.sweep.settings import RangeSettings, Searched, SweepSettings

__all__ = ["Choices", "Range", "Space", "read_space", "settings_with"]

_DIGITS = 3
"""Significant digits of a number drawn from a range: what is printed is exactly what was trained."""
_NOT_SEARCHED = {
    "task": "it says what is taught, not how",
    "seed": "the best of several seeds is luck, not a setting",
    "validation": "what is measured in different ways cannot be compared",
    "batch.maximum_tokens": "it decides which validation examples count, so trials could not be compared",
    "stages": "they decide which validation examples count, so trials could not be compared",
    "adaptation.joint": "who trains together is decided, and the losses of other projects would be compared",
    "privacy": "what is promised to people is decided, not searched",
    "objectives.distillation.teacher": "one teacher is loaded for all trials",
    "checkpoint": "it changes no result",
    "monitor": "it changes no result",
}
_SIZES = ("adaptation.rank", "adaptation.size", "adaptation.tokens", "adaptation.layers")
_EXAMPLE = "sweep: {search: {learning_rate: {low: 0.0001, high: 0.005, log: true}, adaptation.rank: [1, 2, 4, 8, 16]}}"


@dataclass(frozen=True, slots=True)
class Choices:
    """A list of values; lists of numbers are sorted, and near ones count as alike."""

    key: str
    values: tuple[Any, ...]

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers between two bounds; whole ones where the key takes no other."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool

    def rounded(self, value: float) -> float:
        """Return a drawn number with three significant digits, within the bounds."""
        return value if self.whole else min(self.high, max(self.low, float(f"{value:.{_DIGITS}g}")))


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched, by key, around the settings of the project file, and what trials are compared by."""

    training: TrainingSettings
    parts: tuple[Choices | Range, ...]
    by: Quantity = LOSS

    @property
    def size(self) -> str | None:
        """The searched key that says how large the trained part is, None if there is none."""
        return next((key for key in _SIZES if any(part.key == key for part in self.parts)), None)

    @property
    def combinations(self) -> int | None:
        """How many different settings there are; None where a range has no end of them."""
        if not all(isinstance(part, Choices) for part in self.parts):
            return None
        return math.prod(len(part.values) for part in self.parts if isinstance(part, Choices))

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield every combination. Only for spaces that have an end."""
        lists = [part.values for part in self.parts if isinstance(part, Choices)]
        for values in itertools.product(*lists):
            yield {part.key: value for part, value in zip(self.parts, values, strict=True)}

    def settings(self, values: Mapping[str, Any]) -> TrainingSettings:
        """Return the project's settings with these values. Raises ValidationError if they are refused."""
        return settings_with(self.training, values)

    def variants(self) -> Iterator[tuple[str, Any, TrainingSettings | ValidationError]]:
        """Yield (key, value, settings or why not) for every value and bound of each key, with each method that is searched."""
        methods = next((list(_corners(part)) for part in self.parts if part.key == "method"), [None])
        firsts = {part.key: self._sound(part) for part in self.parts}
        for method, part in itertools.product(methods, self.parts):
            for value in _corners(part):
                given = firsts | ({} if method is None else {"method": method}) | {part.key: value}
                try:
                    yield part.key, value, self.settings(given)
                except ValidationError as error:
                    yield part.key, value, error

    def _sound(self, part: Choices | Range) -> Any:
        """Return the first value of a key that is not refused for itself, so that it hides no fault of the others; the first if all are."""
        for value in _corners(part):
            try:
                self.settings({part.key: value})
            except ValidationError as error:
                if any(item["loc"] for item in error.errors()):
                    continue
            return value
        return next(_corners(part))


def _corners(part: Choices | Range) -> Iterator[Any]:
    yield from part.values if isinstance(part, Choices) else (part.low, part.high)


def settings_with(training: TrainingSettings, values: Mapping[str, Any]) -> TrainingSettings:
    """Return training settings with other values at some dotted keys. Raises ValidationError if they are refused."""
    document = training.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        *sections, name = key.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    # JSON mode lets lists stand for tuples, as in the project file.
    return TrainingSettings.model_validate_json(json.dumps(document))


def read_space(training: TrainingSettings, sweep: SweepSettings, document: Document, scoring: Scoring | None = None) -> Space:
    """Return what is searched. Raises ConfigError with every fault: unknown or unfit keys and values, and what no method would read.

    `document` is the project file, whose lines the faults name; `scoring` is what `training.validation.tasks` names.
    """
    faults: list[Fault] = []
    parts: list[Choices | Range] = []
    if not sweep.search:
        faults.append(document.fault(("sweep", "search"), "nothing is searched", f"name keys of training:, such as {_EXAMPLE}"))
    if training.privacy.epsilon is not None:
        what = "the guarantee would not cover a search: settings would be chosen by what the records of people do to a loss"
        faults.append(document.fault(("training", "privacy", "epsilon"), what, "search with public data, or decide the settings beforehand"))
    elif not training.validation.times:
        what = "without validation there is nothing to compare"
        faults.append(document.fault(("training", "validation", "times"), what, "set training.validation.times to 1 or more"))
    if sweep.by == "score" and training.validation.by == "loss":
        remedy = "set training.validation.by: score" + ("" if training.task != "generation" else ", and name tasks under training.validation.tasks")
        faults.append(document.fault(("sweep", "by"), "there is no score: trials keep what has the lowest validation loss", remedy))
    if training.adaptation.joint.projects:
        what = "a trial trains on one project's data"
        faults.append(document.fault(("training", "adaptation", "joint"), what, "search without it, then train together with what was found"))
    known = _keys(TrainingSettings)
    for key, wanted in sweep.search.items():
        found = [*_faults(key, wanted, known), *_unread(key, training)]
        faults += [document.fault(("sweep", "search", key), what, remedy) for what, remedy in found]
        if not found:
            parts.append(_part(key, wanted, known[key]))
    space = Space(training, tuple(parts), quantity_of(training, sweep, scoring))
    faults += _refused(space, document)
    if faults:
        raise ConfigError(faults)
    return space


def _keys(settings: type[Settings], before: str = "") -> dict[str, Any]:
    """Return the dotted keys of a settings class with their types, those of its sections included."""
    found: dict[str, Any] = {}
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            found |= _keys(field.annotation, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = field.annotation
    return found


def _faults(key: str, wanted: Searched, known: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield (what, what to do) for a key that cannot be searched so, whatever the settings beside it."""
    if key not in known:
        if key.split(".", maxsplit=1)[0] == "prepare":
            what = "it changes the dataset, and losses over different validation splits cannot be compared"
            yield what, "build and sweep one dataset after the other"
            return
        inner = [name for name in known if name.startswith(f"{key}.")]
        yield "unknown key of training:", nearest(key.removeprefix("training."), inner or list(known))
        return
    if (place := next((place for place in _NOT_SEARCHED if key == place or key.startswith(f"{place}.")), None)) is not None:
        yield f"cannot be searched: {_NOT_SEARCHED[place]}", "set it under training:"
        return
    if isinstance(wanted, RangeSettings):
        kinds = _numbers(known[key])
        if not kinds:
            yield "takes no number between two others", "give a list of values"
        elif float not in kinds and not (isinstance(wanted.low, int) and isinstance(wanted.high, int)):
            yield "takes whole numbers only", "give whole bounds"
        return
    texts = [json.dumps(value, sort_keys=True) for value in wanted]
    if len(texts) < 2:
        yield ("the list is empty" if not texts else "one value is no search"), "give two values or more, or set the key under training:"
    if again := sorted({text for text in texts if texts.count(text) > 1}):
        yield f"stands twice: {', '.join(again)}", "keep one of them"


def _unread(key: str, training: TrainingSettings) -> Iterator[tuple[str, str | None]]:
    """Yield what is wrong with a key that nothing would read: every stage has its own value of it, or there is no teacher."""
    if key.startswith("objectives.distillation.") and not key.endswith(".teacher") and training.teacher is None:
        yield "there is no teacher, so nothing would change", "name one under training.objectives.distillation.teacher"
    section = "dropout" if key == "adaptation.dropout" else key.split(".", maxsplit=1)[0]
    if (
        section in ("learning_rate", "objectives", "optimizer", "dropout")
        and training.stages
        and all(getattr(stage, section) is not None for stage in training.stages)
    ):
        yield "every stage has its own, so nothing would change", "take it out of the stages, or out of the search"


def _numbers(annotation: Any) -> set[type]:
    """Return which kinds of number a type takes."""
    if annotation in (int, float):
        return {annotation}
    if get_origin(annotation) in (Literal, tuple, dict):
        return set()
    return {kind for part in get_args(annotation) for kind in _numbers(part)}


def _part(key: str, wanted: Searched, annotation: Any) -> Choices | Range:
    if isinstance(wanted, RangeSettings):
        return Range(key, wanted.low, wanted.high, wanted.log, float not in _numbers(annotation))
    choices = Choices(key, tuple(wanted))
    return Choices(key, tuple(sorted(choices.values))) if choices.ordered else choices


def _refused(space: Space, document: Document) -> Sequence[Fault]:
    """Return the faults of values that the training settings refuse, each once, at the key that is searched."""
    found: dict[tuple[str, str], Fault] = {}
    for key, value, outcome in space.variants():
        for error in outcome.errors() if isinstance(outcome, ValidationError) else ():
            place = ".".join(str(part) for part in error["loc"])
            message, _, remedy = str(error["msg"]).removeprefix("Value error, ").partition("\n    -> ")
            what = f"{message[0].lower()}{message[1:]}"
            if not place:
                # The settings together are refused: the message names the keys that do not belong.
                for named in [part.key for part in space.parts if part.key in message] or [""]:
                    found.setdefault((named, what), document.fault(("sweep", "search", *([named] if named else [])), what, remedy or None))
            elif place.startswith(key):  # behind a key pydantic names the branch of its type; another key has its own turn
                what = f"{json.dumps(value)}: {what}"
                found.setdefault((key, what), document.fault(("sweep", "search", key), what, remedy or None))
    return list(found.values())
