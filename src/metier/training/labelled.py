"""Records with labels or spans as examples: every fault of the data is found before a model is loaded."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from metier.errors import Fault, InputError
from metier.models.answers import answer_of, number_of, pair_of, text_of
from metier.models.heads import Layout
from metier.models.labeller import answer_places
from metier.models.labels import Labelling, LabelTask
from metier.models.tags import crossing, tags_of
from metier.models.words import Reading, TextReader
from metier.records import Record
from metier.training.examples import Collector, Examples, Labelled, Targets
from metier.training.guarded import PrivacySettings

__all__ = ["encode_labelled", "fit_labelling"]

_OPEN = PrivacySettings()
_MIDDLE = 0.5
_SHOWN = 10
_BATCH = 1000
_KINDS: dict[LabelTask, Targets] = {"tagging": "classes", "classification": "classes", "multi-label": "rows", "regression": "numbers", "pair": "numbers"}


def fit_labelling(records: Iterable[Record], task: LabelTask, maximum_tokens: int, private: PrivacySettings = _OPEN) -> Labelling:
    """Return what a head has to answer, read off the training records or, of a private training, as it is stated: then nothing of it depends on a record.

    Raises InputError for overlapping spans (naming the records), labels of the wrong kind, no label at all, or one label only.
    """
    faults: list[Fault] = []
    numbers, answers, more = array("d"), Counter[tuple[str, ...]](), 0
    for record in records:
        for fault in _faults(record, task):
            more += len(faults) == _SHOWN
            faults = [*faults, fault][:_SHOWN]
        if task in ("regression", "pair"):
            numbers.extend([] if (value := number_of(record)) is None else [value])
        elif (answer := answer_of(record, task)) is not None:
            answers[answer] += 1
    if faults:
        raise InputError([*faults, *([Fault(f"... and {more} more")] if more else [])])
    if private.epsilon is not None:
        return _as_stated(private, task, maximum_tokens)
    if task in ("regression", "pair"):
        return _of_numbers(numbers, task, maximum_tokens)
    labels = sorted({label for answer in answers for label in answer})
    if not labels:
        raise InputError(_without(task))
    if len(labels) == 1 and task == "classification":
        raise InputError(
            Fault(f"every training record has the label {labels[0]!r}: there is nothing to tell apart", remedy="give records of at least two labels")
        )
    # Ties are broken by name, so that the same records give the same answer.
    prior = () if task == "tagging" else min(answers, key=lambda answer: (-answers[answer], answer))
    return Labelling(task, tuple(labels), maximum_tokens, prior)


def _as_stated(private: PrivacySettings, task: LabelTask, maximum_tokens: int) -> Labelling:
    if task in ("regression", "pair"):
        centre = _MIDDLE if private.centre is None else private.centre
        return Labelling(task, (), maximum_tokens, centre=centre, spread=private.spread or 1.0, stated=True)
    prior = private.labels[:1] if task == "classification" else ()
    return Labelling(task, private.labels, maximum_tokens, prior, stated=True)


def _of_numbers(values: Sequence[float], task: LabelTask, maximum_tokens: int) -> Labelling:
    if not values:
        raise InputError(_without(task))
    centre = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / len(values))
    if not spread:
        raise InputError(Fault(f"every training record has the number {centre:g}: there is nothing to learn", remedy="give records that differ"))
    return Labelling(task, (), maximum_tokens, centre=centre, spread=spread if task == "regression" else 1.0)


def _without(task: LabelTask) -> Fault:
    where = {
        "tagging": "map the column of spans (columns: {text: TEXT, spans: SPANS}), or read files of tagged words (format: conll)",
        "multi-label": "map the column of labels: columns: {text: TEXT, labels: LABELS}",
        "pair": "map both texts and the number: columns: {text: A, pair: B, label: NUMBER}",
    }
    what = "spans" if task == "tagging" else "a label"
    return Fault(
        f"no training record has {what}", key="training.task", remedy=where.get(task, "map the column of the label: columns: {text: TEXT, label: LABEL}")
    )


def _faults(record: Record, task: LabelTask) -> Iterable[Fault]:
    """Yield what makes a record unfit, without showing its text."""
    path, key = (record.source.uri, record.source.position) if record.source else (None, None)
    if task == "tagging":
        if (pair := crossing(record.spans)) is not None:
            first, second = pair
            how = "lies inside" if second.end <= first.end else "crosses"
            what = f"record {record.id}: the span {second.type} {second.start}-{second.end} {how} {first.type} {first.start}-{first.end}"
            yield Fault(what, path, key=key, remedy="a word has one tag: keep the outer or the inner one of the two")
        yield from (
            Fault(
                f"record {record.id}: the span {span.type} {span.start}-{span.end} lies outside its text", path, key=key, remedy="count from 0, in code points"
            )
            for span in record.spans
            if not 0 <= span.start < span.end <= len(record.text)
        )
    elif task in ("regression", "pair") and record.label is not None:
        value = number_of(record)
        if value is None or (task == "pair" and not 0 <= value <= 1):
            wanted = "a number" if task == "regression" else "a number between 0 (does not belong together) and 1"
            yield Fault(f"record {record.id}: the label is not {wanted}", path, key=key, remedy="correct the column that is mapped to `label`")
    if task == "pair" and pair_of(record) is None:
        yield Fault(f"record {record.id} has no second text", path, key=key, remedy="map its column: columns: {pair: NAME}")


def encode_labelled(records: Iterable[Record], reader: TextReader, labelling: Labelling, layout: Layout, *, path: Path | None = None) -> Examples:
    """Return the examples of the records that have an answer and fit; nothing is cut. They are kept in the file `path`, or (None) in memory."""
    with Collector(_KINDS[labelling.task], path) as found:
        for record, reading in _readings(records, reader, labelling):
            targets = _targets(record, reading, labelling, found)
            if isinstance(targets, str):
                found.drop(record, targets)
            elif len(reading) > labelling.maximum_tokens:
                found.drop(record, f"too_many_tokens:{len(reading)}>{labelling.maximum_tokens}")
            elif not targets:
                found.drop(record, "nothing_to_learn")
            else:
                found.take(record, Labelled(reading.tokens, tuple(answer_places(reading, layout)), targets, reading.kinds))
    return found.collected()


def _readings(records: Iterable[Record], reader: TextReader, labelling: Labelling) -> Iterator[tuple[Record, Reading]]:
    """Yield records with what is read of them; texts that are read whole go to the tokenizer many at a time."""
    if labelling.by_word:
        yield from ((record, reader.by_word(record.text)) for record in records)
        return
    stream = iter(records)
    while batch := list(islice(stream, _BATCH)):
        readings = reader.whole([text_of(record) for record in batch], [pair_of(record) for record in batch])
        yield from zip(batch, readings, strict=True)


def _targets(record: Record, reading: Reading, labelling: Labelling, found: Collector) -> tuple[Any, ...] | str:
    """Return what is to be answered, or why the record is left out."""
    labels = labelling.labels
    if labelling.task in ("regression", "pair"):
        value = number_of(record)
        if value is None:
            return "no_label"
        return ((value - labelling.centre) / labelling.spread if labelling.task == "regression" else value,)
    answer = answer_of(record, labelling.task)
    if answer is None:
        return "no_label"
    if not set(answer) <= set(labels):
        return "unknown_label"
    if labelling.task == "tagging":
        tags, widened = tags_of(reading.words, record.spans, labels)
        found.widened += widened
        return tuple(tags)
    if labelling.task == "multi-label":
        return (tuple(float(label in answer) for label in labels),)
    return (labels.index(answer[0]),)
