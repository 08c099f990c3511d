"""How well labels are told on the validation records: what the best model can be chosen by, where the loss says little of rare labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from metier.models.answers import answer_of, text_of
from metier.models.labeller import Labeller
from metier.models.labels import Labelling
from metier.models.words import TextReader
from metier.records import Record

__all__ = ["f1_of", "scorer"]


def scorer(labelling: Labelling, reader: TextReader, records: Sequence[Record], *, device: str) -> Callable[[Any], float] | None:
    """Return what scores a model as it is: the mean F1 of the labels, of spans the F1 of exact matches; None for numbers and pairs."""
    if labelling.task in ("regression", "pair"):
        return None
    known = [record for record in records if answer_of(record, labelling.task) is not None]
    texts = [text_of(record) for record in known]
    wanted = [_true(record, labelling) for record in known]

    def score(model: Any) -> float:
        given = Labeller(model, labelling, reader, device=device).predict(texts)
        said = [{(span.start, span.end, span.type) for span in item.spans} if labelling.by_word else set(item.labels) for item in given]
        return f1_of(wanted, said, mean=not labelling.by_word)

    return score


def _true(record: Record, labelling: Labelling) -> set[Any]:
    if labelling.by_word:
        return {(span.start, span.end, span.type) for span in record.spans if span.type in labelling.labels}
    return set(answer_of(record, labelling.task) or ())


def f1_of(wanted: Sequence[set[Any]], said: Sequence[set[Any]], *, mean: bool) -> float:
    """Return F1 of all answers together or, with `mean`, averaged over the labels that are true or said somewhere; 0/0 counts as 0."""
    right: Counter[Any] = Counter()
    every: Counter[Any] = Counter()
    for true, given in zip(wanted, said, strict=True):
        right.update(true & given if mean else ["all"] * len(true & given))
        every.update([*true, *given] if mean else ["all"] * (len(true) + len(given)))
    scores = [2 * right[label] / count for label, count in every.items()]
    return sum(scores) / len(scores) if scores else 0.0
