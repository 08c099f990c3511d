"""What was right, said and true of each class or type in each item: everything that precision, recall and F1 are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.evaluation.measures import Measure, ratio
from metier.evaluation.statistics import Floats, interval
from metier.models.words import words
from metier.records import Span

__all__ = ["Counts", "label_counts", "span_counts", "table", "word_counts"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Three arrays [items, names]: how often each name was right, was said, and was true."""

    names: tuple[str, ...]
    right: Floats
    said: Floats
    true: Floats

    def f1(self) -> Measure:
        """Micro average: all names together."""
        return ratio(2 * self.right.sum(axis=1), (self.said + self.true).sum(axis=1))

    def precision(self) -> Measure:
        """Of what was said, the share that is right, all names together."""
        return ratio(self.right.sum(axis=1), self.said.sum(axis=1))

    def recall(self) -> Measure:
        """Of what is true, the share that was said, all names together."""
        return ratio(self.right.sum(axis=1), self.true.sum(axis=1))

    def macro_f1(self) -> Measure:
        """The mean of the names' own F1, over the names that are said or true anywhere (as seqeval and scikit-learn count)."""
        rows = self.right.sum(axis=1), self.said.sum(axis=1), self.true.sum(axis=1)
        own = _shares(2 * rows[0], rows[1] + rows[2])

        def statistic(weights: Floats) -> Floats:
            scores = _shares(2 * (weights @ self.right), weights @ self.said + weights @ self.true)
            counted = ~np.isnan(scores)
            return _shares(np.nan_to_num(scores).sum(axis=1), counted.sum(axis=1).astype(float))

        return Measure(own, statistic, "corpus")


def _shares(top: Floats, bottom: Floats) -> Floats:
    result: Floats = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result


def _counted(names: Sequence[str], pairs: Sequence[tuple[Sequence[Any], Sequence[Any]]], name_of: Callable[[Any], str]) -> Counts:
    """Count for each item which of the things said are among the true ones; equal things are the same thing."""
    place = {name: index for index, name in enumerate(names)}
    right, said, true = (np.zeros((len(pairs), len(names))) for _ in range(3))
    for row, (given, wanted) in enumerate(pairs):
        for things, array in ((set(given), said), (set(wanted), true), (set(given) & set(wanted), right)):
            for thing in things:
                array[row, place[name_of(thing)]] += 1
    return Counts(tuple(names), right, said, true)


def label_counts(given: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]], labels: Sequence[str]) -> Counts:
    """Count labels; those that are true of an item and not among `labels` get a column of their own behind them."""
    more = sorted({label for item in wanted for label in item} - set(labels))
    return _counted([*labels, *more], list(zip(given, wanted, strict=True)), str)


def span_counts(given: Sequence[Sequence[Span]], wanted: Sequence[Sequence[Span]], types: Sequence[str]) -> Counts:
    """Count spans, strictly: begin, end and type all have to be right (CoNLL 2003; `mode='strict'` of seqeval)."""
    pairs = [([_key(span) for span in said], [_key(span) for span in true]) for said, true in zip(given, wanted, strict=True)]
    return _counted(_all(types, wanted), pairs, lambda key: str(key[2]))


def word_counts(texts: Sequence[str], given: Sequence[Sequence[Span]], wanted: Sequence[Sequence[Span]], types: Sequence[str]) -> Counts:
    """Count words by the type of the span that they lie in, whatever its borders; words outside are not counted."""
    pairs = [(_words_in(text, said), _words_in(text, true)) for text, said, true in zip(texts, given, wanted, strict=True)]
    return _counted(_all(types, wanted), pairs, lambda key: str(key[1]))


def _key(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.type


def _all(types: Sequence[str], wanted: Sequence[Sequence[Span]]) -> list[str]:
    return [*types, *sorted({span.type for item in wanted for span in item} - set(types))]


def _words_in(text: str, spans: Sequence[Span]) -> list[tuple[int, str]]:
    found = []
    for place, (start, end) in enumerate(words(text)):
        kind = next((span.type for span in spans if span.start < end and start < span.end), None)
        if kind is not None:
            found.append((place, kind))
    return found


def table(counts: Counts, weights: Floats, confidence: float) -> dict[str, dict[str, Any]]:
    """Return precision, recall, F1 (with its interval over the resamples `weights`), support and number said of each name, and of their averages.

    `micro`: all together; `macro`: mean of the names; `weighted`: mean by support. A figure that is 0/0 is 0, as scikit-learn and seqeval
    write it.
    """
    rows: dict[str, dict[str, Any]] = {}
    right, said, true = counts.right.sum(axis=0), counts.said.sum(axis=0), counts.true.sum(axis=0)
    known = [index for index in range(len(counts.names)) if said[index] + true[index] > 0]
    drawn = [weights @ array for array in (counts.right, counts.said, counts.true)]
    for index in known:
        draws = _shares(2 * drawn[0][:, index], drawn[1][:, index] + drawn[2][:, index])
        rows[counts.names[index]] = _row(right[index], said[index], true[index], draws, confidence)
    if not known:
        return rows
    together = _shares(2 * drawn[0].sum(axis=1), (drawn[1] + drawn[2]).sum(axis=1))
    averages = {"micro": _row(right.sum(), said.sum(), true.sum(), together, confidence)}
    each = np.nan_to_num(_shares(2 * drawn[0][:, known], (drawn[1] + drawn[2])[:, known]))
    support = np.asarray([row["support"] for row in rows.values()], dtype=float)
    shares = {"macro": np.full(len(known), 1 / len(known)), "weighted": support / max(support.sum(), 1.0)}
    for name, share in shares.items():
        figures = {key: float(share @ np.asarray([row[key] for row in rows.values()])) for key in ("precision", "recall")}
        value = float(share @ np.asarray([row["f1"]["value"] for row in rows.values()]))
        averages[name] = {**figures, "f1": interval(each @ share, value, confidence).as_facts(), "support": int(true.sum()), "said": int(said.sum())}
    return {**rows, **{f"{name} average": row for name, row in averages.items()}}


def _row(right: float, said: float, true: float, draws: Floats, confidence: float) -> dict[str, Any]:
    precision, recall, f1 = (0.0 if not bottom else top / bottom for top, bottom in ((right, said), (right, true), (2 * right, said + true)))
    bounds = interval(draws, f1, confidence)
    facts = bounds.as_facts() if not math.isnan(bounds.low) else {"value": f1, "low": None, "high": None}
    return {"precision": float(precision), "recall": float(recall), "f1": facts, "support": int(true), "said": int(said)}
