"""From records and predictions to items, measures and tables, task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from metier.evaluation.corpus import record_language
from metier.evaluation.items import Answer, Item, conversation
from metier.evaluation.labels.counts import Counts, label_counts, span_counts, word_counts
from metier.evaluation.labels.numbers import absolute_error, discounted_gain, rank_correlation, reciprocal_rank, root_square_error
from metier.evaluation.measures import Measure, macro_f1, matthews, mean, roc_auc
from metier.evaluation.scorers import Graded
from metier.models.answers import answer_of, number_of, pair_of, text_of
from metier.models.labels import Labelling, Prediction
from metier.packs.spec import Metric
from metier.records import Record, Span

__all__ = ["Side", "answered", "graded_items", "item_of", "measures_of", "metrics_of", "prior_answer", "tables_of"]


@dataclass(frozen=True, slots=True)
class Side:
    """What one side said to each record, and what is true of it."""

    records: Sequence[Record]
    given: Sequence[Prediction]
    labelling: Labelling
    gold: Sequence[tuple[str, ...]] = field(default_factory=tuple)

    @property
    def numbers(self) -> tuple[list[float], list[float]]:
        """Numbers said and true numbers; a text that is too long is given the centre."""
        said = [self.labelling.centre if item.value is None else item.value for item in self.given]
        return said, [number_of(record) or 0.0 for record in self.records]


def answered(record: Record, labelling: Labelling) -> bool:
    """Return whether a record says what the right answer is."""
    if labelling.task in ("regression", "pair"):
        return number_of(record) is not None
    return answer_of(record, labelling.task) is not None


def prior_answer(labelling: Labelling) -> Prediction:
    """Return what is most frequent in the training split: the answer of a base model that has no head for the task yet."""
    chances = tuple(float(label in labelling.prior) for label in labelling.labels)
    value = labelling.centre if labelling.task in ("regression", "pair") else None
    return Prediction(labelling.prior, value, (), () if labelling.task == "tagging" else chances)


def item_of(record: Record, labelling: Labelling) -> Item:
    """Return a record as an item: its text (and second text) as the prompt, the right answer in words as the target."""
    text, pair = text_of(record), pair_of(record)
    prompt = conversation(text if pair is None else f"{text}\n\n{pair}")
    choices = labelling.labels if labelling.task == "classification" else ()
    return Item(record.id, record_language(record), prompt, _target(record, labelling), choices, record.id)


def _target(record: Record, labelling: Labelling) -> str:
    if labelling.task == "tagging":
        return _said_spans(record.spans)
    if labelling.task in ("regression", "pair"):
        return f"{number_of(record):.6g}"
    return "; ".join(answer_of(record, labelling.task) or ()) or "(none)"


def _said_spans(spans: Sequence[Span]) -> str:
    return "; ".join(f"{span.type} {span.start}-{span.end}: {span.text}" for span in spans) or "(none)"


def _said(answer: Prediction, labelling: Labelling) -> str:
    if labelling.task == "tagging":
        return _said_spans(answer.spans)
    return f"{answer.value:.6g}" if answer.value is not None else "; ".join(answer.labels) or "(none)"


def graded_items(side: Side, items: Sequence[Item]) -> list[Graded]:
    """Return the answers of a side as the report shows them; a text that the model cannot take is not valid."""
    graded = []
    for item, given in zip(items, side.given, strict=True):
        said = _said(given, side.labelling) if given.read else "(longer than the model takes)"
        graded.append(Graded(item, Answer(said), given.read, False, said, item.target, given.probabilities))
    return graded


_Make = Callable[[Side], Measure]


def _labels(side: Side) -> Counts:
    return label_counts([item.labels for item in side.given], side.gold, side.labelling.labels)


def _spans(side: Side) -> Counts:
    return span_counts([item.spans for item in side.given], [record.spans for record in side.records], side.labelling.labels)


def _words(side: Side) -> Counts:
    texts = [record.text for record in side.records]
    return word_counts(texts, [item.spans for item in side.given], [record.spans for record in side.records], side.labelling.labels)


def _first(side: Side) -> tuple[list[str], list[str]]:
    return [gold[0] for gold in side.gold], [item.labels[0] if item.labels else "" for item in side.given]


def _classes_auc(side: Side) -> Measure:
    labels, gold = side.labelling.labels, [item[0] for item in side.gold]
    chances = [item.probabilities or (0.0,) * len(labels) for item in side.given]
    return roc_auc(chances, [labels.index(label) if label in labels else -1 for label in gold], [labels] * len(gold))


def _pair_auc(side: Side) -> Measure:
    said, true = side.numbers
    return roc_auc([(1 - value, value) for value in said], [int(value >= 0.5) for value in true], [("no", "yes")] * len(said))


def _questions(side: Side) -> list[str]:
    return [text_of(record) for record in side.records]


_MEASURES: Mapping[str, Mapping[str, tuple[_Make, bool]]] = {
    "classification": {
        "macro_f1": (lambda side: macro_f1(*_first(side)), True),
        "acc": (lambda side: mean([float(gold == said) for gold, said in zip(*_first(side), strict=True)], binary=True), True),
        "mcc": (lambda side: matthews(*_first(side)), True),
        "roc_auc": (_classes_auc, True),
    },
    "multi-label": {
        "micro_f1": (lambda side: _labels(side).f1(), True),
        "label_macro_f1": (lambda side: _labels(side).macro_f1(), True),
        "exact": (lambda side: mean([float(tuple(item.labels) == gold) for item, gold in zip(side.given, side.gold, strict=True)], binary=True), True),
    },
    "regression": {
        "mae": (lambda side: absolute_error(*side.numbers), False),
        "rmse": (lambda side: root_square_error(*side.numbers), False),
        "spearman": (lambda side: rank_correlation(*side.numbers), True),
    },
    "pair": {
        "roc_auc": (_pair_auc, True),
        "mrr": (lambda side: reciprocal_rank(*side.numbers, _questions(side)), True),
        "ndcg": (lambda side: discounted_gain(*side.numbers, _questions(side)), True),
        "spearman": (lambda side: rank_correlation(*side.numbers), True),
        "mae": (lambda side: absolute_error(*side.numbers), False),
    },
    "tagging": {
        "entity_f1": (lambda side: _spans(side).f1(), True),
        "entity_precision": (lambda side: _spans(side).precision(), True),
        "entity_recall": (lambda side: _spans(side).recall(), True),
        "entity_macro_f1": (lambda side: _spans(side).macro_f1(), True),
        "token_f1": (lambda side: _words(side).f1(), True),
    },
}


def metrics_of(labelling: Labelling) -> tuple[Metric, ...]:
    """Return the metrics of a task; the first is the one that the verdict is on."""
    return tuple(Metric(metric=name, higher_is_better=better) for name, (_, better) in _MEASURES[labelling.task].items())


def measures_of(side: Side) -> dict[str, Measure]:
    """Return the measures of one side by name."""
    return {name: make(side) for name, (make, _) in _MEASURES[side.labelling.task].items()}


def tables_of(side: Side) -> dict[str, Counts]:
    """Return what tables of classes or types are made of, by level: of spans both whole entities and words."""
    if side.labelling.task == "tagging":
        return {"entity": _spans(side), "token": _words(side)}
    return {"label": _labels(side)} if side.labelling.task in ("classification", "multi-label") else {}
