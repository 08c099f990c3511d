"""What a model with a head answers: the task, its labels, and how they stand in the head's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from metier.errors import ModelError
from metier.records import Span
from metier.store import write_atomically

__all__ = ["LABELS_FILE", "LabelTask", "Labelling", "Prediction", "read_labelling"]

LabelTask: TypeAlias = Literal["classification", "multi-label", "regression", "pair", "tagging"]
"""One label a text; any number of labels; a number; how well two texts belong together, between 0 and 1; typed spans."""

LABELS_FILE = "labels.json"


@dataclass(frozen=True, slots=True)
class Labelling:
    """A task and its labels; of tagging these are the types of the spans.

    `centre` and `spread` are mean and standard deviation of the numbers that training saw: the head learns (number - centre) / spread.
    `prior` is the most frequent answer of the training split: what can be said without reading a text. Of a number it is the centre. Where all this is
    `stated`, nothing of it was read off the records, and the prior is the first label.
    """

    task: LabelTask
    labels: tuple[str, ...]
    maximum_tokens: int
    prior: tuple[str, ...] = ()
    centre: float = 0.0
    spread: float = 1.0
    stated: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the head's outputs."""
        if self.task == "tagging":
            return ("O", *(f"{place}-{label}" for label in self.labels for place in "BI"))
        return self.labels if self.labels else ("score",)

    @property
    def by_word(self) -> bool:
        """Whether each word gets an answer, not each text."""
        return self.task == "tagging"

    def write(self, folder: Path) -> None:
        """Write `labels.json` into a folder. Raises StoreError if the disk does not take it."""
        write_atomically(folder / LABELS_FILE, (json.dumps(asdict(self), ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode())


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is answered to one text. `labels`: the one label, or all that apply; `value`: the number, of a pair its score between 0 and 1.

    `probabilities` has one figure a label (of tagging and numbers: none), `certainty` one a span: the probability of the tag of its least certain
    word. `read` is False for a text that is longer than the model takes: it has no answer.
    """

    labels: tuple[str, ...] = ()
    value: float | None = None
    spans: tuple[Span, ...] = ()
    probabilities: tuple[float, ...] = ()
    certainty: tuple[float, ...] = ()
    read: bool = True


def read_labelling(folder: Path) -> Labelling:
    """Return the labelling of a trained model's folder. Raises ModelError for a file that is none."""
    path = folder / LABELS_FILE
    try:
        values: Mapping[str, Any] = json.loads(path.read_bytes())
        lists = {name: tuple(_texts(values[name])) for name in ("labels", "prior")}
        found = Labelling(**{**values, **lists})
        sound = found.task in get_args(LabelTask) and isinstance(found.maximum_tokens, int) and found.spread > 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} does not say what the model's outputs mean ({error})\n    -> train again, or restore the file") from None
    if not sound:
        raise ModelError(f"{path} names a task or numbers that no version of this program writes\n    -> train again, or restore the file")
    return found


def _texts(value: Sequence[Any]) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("labels are a list of texts")
    return value
