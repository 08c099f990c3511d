"""How well a model does on the validation records: what the best one can be chosen by, where the loss says little of what is wanted.

Labels and spans are scored here. What scores answers in words is given from outside, for only the evaluation knows its tasks; see `Scoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metier.artifacts import Artifact
from metier.jackknife import Score, jackknifed
from metier.models import Chat
from metier.models.answers import answer_of, number_of, pair_of, text_of
from metier.models.labeller import Labeller
from metier.models.labels import Labelling
from metier.models.words import TextReader
from metier.progress import Progress
from metier.records import Record

__all__ = ["Doubt", "Scorer", "Scoring", "f1_of", "label_doubt", "label_score", "label_scorer"]

_TOO_FEW = 8
"""Of fewer records it says nothing that all get the same answer."""

_WRONG = 3
"""Where it is wrong of fewer, the rest may simply be rare."""

_FLAT = 0.01
"""Numbers are the same answer where they vary less than this share of the true ones."""

_MORE = "train for more epochs or with fewer records a step (training.batch.rows), or weigh rare labels (training.objectives.class_weights: balanced)"


Scorer: TypeAlias = Callable[[Any], Score]
"""Scores a model as it is."""


Doubt: TypeAlias = Callable[[Any], str | None]
"""Says of a model as it is why it has probably learnt nothing, or None."""


class Scoring(Protocol):
    """What scores answers in words on validation records. It can be sent to another process."""

    @property
    def digest(self) -> str:
        """Digest of everything that decides a score but the dataset and the model."""

    @property
    def name(self) -> str:
        """What is measured, for tables and charts."""

    @property
    def higher_is_better(self) -> bool:
        """Which way is better."""

    def open(self, dataset: Artifact, chat: Chat, *, device: str, progress: Progress) -> Scorer:
        """Return what scores a model on this dataset's validation records. Raises InputError where they have nothing to ask."""


def label_score(task: str) -> str:
    """Return the name of what `label_scorer` measures, for tables and charts."""
    return "F1 of exact spans" if task == "tagging" else "mean F1 of the labels"


def label_scorer(labelling: Labelling, reader: TextReader, records: Sequence[Record], *, device: str) -> Scorer | None:
    """Return what scores a model as it is: the mean F1 of the labels, of spans the F1 of exact matches; None for numbers and pairs."""
    if labelling.task in ("regression", "pair"):
        return None
    known = [record for record in records if answer_of(record, labelling.task) is not None]
    texts = [text_of(record) for record in known]
    wanted = [_true(record, labelling) for record in known]

    def score(model: Any) -> Score:
        given = Labeller(model, labelling, reader, device=device).predict(texts)
        said = [{(span.start, span.end, span.type) for span in item.spans} if labelling.by_word else set(item.labels) for item in given]
        return f1_of(wanted, said, mean=not labelling.by_word)

    return score


def label_doubt(labelling: Labelling, reader: TextReader, records: Sequence[Record], *, device: str) -> Doubt:
    """Return what notices that a model gives the same answer to all validation records, which are not all alike: a loss seldom shows it."""
    known = [record for record in records if answer_of(record, labelling.task) is not None]
    texts, pairs = [text_of(record) for record in known], [pair_of(record) for record in known]

    def doubt(model: Any) -> str | None:
        said = [item for item in Labeller(model, labelling, reader, device=device).predict(texts, pairs) if item.read]
        if len(said) < _TOO_FEW:
            return None
        if labelling.task in ("regression", "pair"):
            spread, usual = np.std([item.value or 0.0 for item in said]), np.std([number_of(record) or 0.0 for record in known])
            return f"nearly one number is answered to all {len(said)} validation records\n    -> {_MORE}" if spread < _FLAT * usual else None
        answer, *others = {tuple(sorted({span.type for span in item.spans})) if labelling.by_word else tuple(sorted(item.labels)) for item in said}
        wrong = sum(answer_of(record, labelling.task) != answer for record in known)
        if others or wrong < _WRONG or (answer and labelling.by_word):
            return None
        what = repr("|".join(answer)) if answer else "no span at all" if labelling.by_word else "no label at all"
        return f"{what} is answered to all {len(said)} validation records, and {wrong} of them say otherwise\n    -> {_MORE}"

    return doubt


def _true(record: Record, labelling: Labelling) -> set[Any]:
    if labelling.by_word:
        return {(span.start, span.end, span.type) for span in record.spans if span.type in labelling.labels}
    return set(answer_of(record, labelling.task) or ())


def f1_of(wanted: Sequence[set[Any]], said: Sequence[set[Any]], *, mean: bool) -> Score:
    """Return F1 of all answers together or, with `mean`, averaged over the labels that are true or said somewhere; 0/0 counts as 0."""
    names = sorted({label for answer in (*wanted, *said) for label in answer}) if mean else ["all"]
    right, every = (np.zeros((len(wanted), len(names))) for _ in range(2))
    for place, (true, given) in enumerate(zip(wanted, said, strict=True)):
        if mean:
            right[place] = [name in true and name in given for name in names]
            every[place] = [(name in true) + (name in given) for name in names]
        else:
            right[place], every[place] = len(true & given), len(true) + len(given)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        hits, counts = weights @ right, weights @ every
        scores = np.divide(2 * hits, counts, out=np.zeros_like(hits), where=counts > 0)
        found: NDArray[np.float64] = scores.sum(axis=1) / np.maximum(1, (counts > 0).sum(axis=1))
        return found

    return jackknifed(statistic, len(wanted))
