"""Labels that look wrong: one text with two labels, and labels that a model trained on the other records does not believe.

Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70), as the package cleanlab implements it, over probabilities that are out
of sample: no record is judged by a model that saw it, its text, its group or its subject.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from metier.errors import MissingExtra
from metier.prepare.drops import drop
from metier.prepare.labels.features import feature_matrix, judged_text, tabular, text_key
from metier.prepare.labels.settings import LabelSettings
from metier.records import Drop, Record
from metier.store import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Examined", "Suspect", "contradictions", "examine", "held_out_probabilities", "leaving", "write_review"]

STEP = "labels"


@dataclass(frozen=True, slots=True)
class Suspect:
    """One label to be looked at. `confidence` is the probability of the label that stands, `suggested` the likeliest and its own."""

    record_id: str
    task: str
    label: str
    kind: Literal["contradiction", "suspect"]
    reason: str
    confidence: float | None = None
    suggested: str | None = None
    suggested_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """What the check of one task found: suspects, worst first; accuracy of the held-out predictions; what was not judged and why."""

    task: str
    records: int
    suspects: tuple[Suspect, ...]
    accuracy: float | None
    not_judged: tuple[str, ...]


def contradictions(records: Iterable[Record], *, fields: Sequence[str] = ()) -> tuple[Suspect, ...]:
    """Return every record whose text stands with another label too (texts compared without case, width and surplus blanks)."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for record in records:
        if record.label is not None and (text := judged_text(record, fields=fields).strip()):
            groups.setdefault((record.task or "none", text_key(text)), []).append((record.id, record.label))
    found = []
    for (task, _), members in groups.items():
        labels = Counter(label for _, label in members)
        if len(labels) > 1:
            said = ", ".join(f"{label!r} ({count})" for label, count in sorted(labels.items(), key=lambda item: (-item[1], item[0])))
            found += [Suspect(record_id, task, label, "contradiction", f"the same text stands with the labels {said}") for record_id, label in members]
    return tuple(sorted(found, key=lambda suspect: (suspect.task, suspect.reason, suspect.record_id)))


def examine(
    records: Iterable[Record], settings: LabelSettings, *, features: NDArray[np.float32] | None = None, fields: Sequence[str] = ()
) -> tuple[Examined, ...]:
    """Judge the labels of each task by cross-validation and return what was found.

    `features` [records, n] take the place of words, for instance an encoder's vectors. Raises MissingExtra without cleanlab.
    """
    held = [record for record in records if record.label is not None]
    tasks: dict[str, list[int]] = {}
    for place, record in enumerate(held):
        tasks.setdefault(record.task or "none", []).append(place)
    found = []
    for task, places in sorted(tasks.items()):
        own = None if features is None else features[places]
        found.append(_examine(task, [held[place] for place in places], settings, own, fields))
    return tuple(found)


def _examine(task: str, records: list[Record], settings: LabelSettings, features: Any, fields: Sequence[str]) -> Examined:
    counts = Counter(record.label or "" for record in records)
    groups = _groups(records, fields)
    spread = {label: len({group for record, group in zip(records, groups, strict=True) if record.label == label}) for label in counts}
    judged = sorted(label for label, count in counts.items() if count >= settings.least and spread[label] >= settings.folds)
    left = [f"the label {label!r} ({counts[label]} records, {spread[label]} groups) is too rare to be judged" for label in sorted(set(counts) - set(judged))]
    if len(judged) < 2:
        said = [f"all {len(records)} records have the label {next(iter(counts))!r}: there is nothing to compare it with"] if len(counts) == 1 else left
        return Examined(task, len(records), (), None, tuple(said))
    places = [place for place, record in enumerate(records) if record.label in judged]
    chosen = [records[place] for place in places]
    matrix = feature_matrix(chosen, features=settings.features, fields=fields) if features is None else features[places]
    labels = np.asarray([judged.index(record.label or "") for record in chosen])
    probabilities = held_out_probabilities(matrix, labels, [groups[place] for place in places], folds=settings.folds, seed=settings.seed)
    shown = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    if len(shown) < len(chosen):
        left.append(f"{len(chosen) - len(shown)} records are not judged: no other fold holds their class, or none holds a second one")
    classes = np.unique(labels[shown])
    if len(classes) < 2:
        return Examined(task, len(records), (), None, tuple(left))
    own, likely = np.searchsorted(classes, labels[shown]), probabilities[np.ix_(shown, classes)]
    suspects = _suspects(task, [chosen[place] for place in shown], [judged[one] for one in classes], own, likely / likely.sum(axis=1, keepdims=True))
    accuracy = float((likely.argmax(axis=1) == own).mean())
    return Examined(task, len(records), suspects, accuracy, tuple(left))


def _groups(records: Sequence[Record], fields: Sequence[str]) -> list[str]:
    """Return what ties each record to others in one fold: records that share a subject, a group or a text, chains of them included."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for place, record in enumerate(records):
        own = root(f"record {place}")
        text = "" if tabular(record) else judged_text(record, fields=fields).strip()
        for kind, value in (("subject", record.subject), ("group", record.group), ("text", text_key(text) if text else None)):
            if value is not None:
                parent[root(f"{kind} {value}")] = own = root(own)
    return [root(f"record {place}") for place in range(len(records))]


def held_out_probabilities(matrix: Any, labels: NDArray[np.int64], groups: Sequence[str], *, folds: int = 5, seed: int = 0) -> NDArray[np.float64]:
    """Return the probability of each class for each record by a logistic regression that saw neither it nor its group [records, classes].

    A record whose class only its own fold holds cannot be judged: nobody else shows what the class looks like. Its row is not a number.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError:
        raise MissingExtra("scikit-learn", "labels", "the check of labels") from None
    classes = int(labels.max()) + 1
    found = np.full((len(labels), classes), 1e-6)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    keys = np.asarray([numbers[name] for name in groups])
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for train, held in splitter.split(np.zeros(len(labels)), labels, keys):
        shown = np.unique(labels[train])
        if len(shown) > 1:
            model = LogisticRegression(C=4.0, max_iter=300, tol=1e-3)
            model.fit(matrix[train], labels[train])
            found[np.ix_(held, model.classes_)] = model.predict_proba(matrix[held])
        found[held[~np.isin(labels[held], shown) | (len(shown) < 2)]] = np.nan
    probabilities: NDArray[np.float64] = found / found.sum(axis=1, keepdims=True)
    return probabilities


def _suspects(task: str, records: Sequence[Record], names: Sequence[str], labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> tuple[Suspect, ...]:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise MissingExtra("cleanlab", "labels", "looking for label errors") from None
    chosen = find_label_issues(labels=labels, pred_probs=probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    found = []
    for place in map(int, np.flatnonzero(chosen)):
        own, likeliest = int(labels[place]), int(probabilities[place].argmax())
        if own == likeliest:
            continue
        here, there = float(probabilities[place, own]), float(probabilities[place, likeliest])
        reason = f"a model that did not see it gives {names[likeliest]!r} {there:.2f} and {names[own]!r} {here:.2f}"
        found.append(Suspect(records[place].id, task, names[own], "suspect", reason, here, names[likeliest], there))
    return tuple(sorted(found, key=lambda suspect: (suspect.confidence or 0.0, suspect.record_id)))


def leaving(records: Iterable[Record], suspects: Iterable[Suspect]) -> Iterator[Record | Drop]:
    """Yield the records, and drops for those that are suspected; the step of `labels: {drop: true}`."""
    reasons = {suspect.record_id: suspect for suspect in suspects}
    for record in records:
        suspect = reasons.get(record.id)
        if suspect is None:
            yield record
        elif suspect.kind == "contradiction":
            yield drop(record, STEP, "contradictory_labels")
        else:
            yield drop(record, STEP, f"suspected_label:{suspect.confidence:.2f}")


def write_review(path: Path, suspects: Iterable[Suspect], records: Iterable[Record], *, fields: Sequence[str] = ()) -> int:
    """Write a JSONL file for reviewers, one suspect a line with its text and place, and return how many there are.

    It is data like the records themselves (de-identified if they are), not a report.
    """
    wanted: dict[str, list[Suspect]] = {}
    for suspect in suspects:
        wanted.setdefault(suspect.record_id, []).append(suspect)
    lines: list[tuple[Any, str]] = []
    for record in records:
        for suspect in wanted.get(record.id, ()):
            row = {name: getattr(suspect, name) for name in Suspect.__slots__}
            place = f"{record.source.uri}, {record.source.position}" if record.source else None
            row |= {"source": place, "text": judged_text(record, fields=fields), "decision": None}
            order = (suspect.kind, suspect.confidence if suspect.confidence is not None else -1.0, record.id)
            lines.append((order, json.dumps(row, ensure_ascii=False, sort_keys=True)))
    write_atomically(path, "".join(f"{line}\n" for _, line in sorted(lines)).encode())
    return len(lines)
