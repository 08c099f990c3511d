"""Classes: how many records each has, whether they can be learnt at all, and a plan that makes them weigh the same."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from metier.prepare.labels.suspects import Examined
from metier.records import Record

__all__ = ["Balance", "class_balance", "label_facts", "plan"]

_LARGE_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Balance:
    """The classes of one task: counts, the largest over the smallest, how even they are (entropy over its maximum, 1: all equal), remarks."""

    task: str
    counts: Mapping[str, int]
    ratio: float
    evenness: float
    remarks: tuple[str, ...]


def class_balance(records: Iterable[Record], *, least: int = 5) -> tuple[Balance, ...]:
    """Return the balance of each task that has labels, by name. What makes a label useless for learning is said in words."""
    counts: dict[str, Counter[str]] = {}
    unlabelled: Counter[str] = Counter()
    for record in records:
        if record.label is None:
            unlabelled[record.task or "none"] += 1
        else:
            counts.setdefault(record.task or "none", Counter())[record.label] += 1
    return tuple(_balance(task, found, unlabelled[task], least) for task, found in sorted(counts.items()))


def _balance(task: str, counts: Counter[str], unlabelled: int, least: int) -> Balance:
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    total = sum(ordered.values())
    largest, smallest = next(iter(ordered.items())), list(ordered.items())[-1]
    entropy = -sum(count / total * math.log(count / total) for count in ordered.values())
    remarks = []
    if len(ordered) == 1:
        remarks.append(f"all {total} records have the label {largest[0]!r}: nothing can be learnt or measured from it")
    elif largest[1] > _LARGE_SHARE * total:
        remarks.append(f"{largest[1]} of {total} records have the label {largest[0]!r}: always saying it is right {largest[1] / total:.0%} of the time")
    few = [label for label, count in ordered.items() if count < least]
    if few and len(ordered) > 1:
        remarks.append(f"{len(few)} classes have fewer than {least} records: {', '.join(map(repr, few[:8]))}{' ...' if len(few) > 8 else ''}")
    if unlabelled:
        remarks.append(f"{unlabelled} records have no label")
    return Balance(task, ordered, largest[1] / smallest[1], entropy / math.log(len(ordered)) if len(ordered) > 1 else 0.0, tuple(remarks))


def plan(records: Iterable[Record], method: Literal["none", "weights", "down", "over"], *, most: float = 4.0, seed: int = 0) -> dict[str, float]:
    """Return what each labelled record counts for, by id, for mixing to apply.

    `weights`: n / (classes x n_class), the same sum for every class (King and Zeng 2001), bounded by 1/`most` and `most`. `down`: 1 for
    as many records of each class as `most` times the smallest has, 0 for the rest, chosen by a hash of their id. `over`: a whole number of
    times that brings the class near the largest, at most `most`. `none`: an empty plan. The order of the records does not matter.
    """
    if method == "none":
        return {}
    classes: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record.label is not None:
            classes.setdefault((record.task or "none", record.label), []).append(record.id)
    found: dict[str, float] = {}
    for task in sorted({task for task, _ in classes}):
        own = {label: ids for (name, label), ids in classes.items() if name == task}
        sizes = [len(ids) for ids in own.values()]
        for ids in own.values():
            found.update(_weights(ids, method, sizes, most, seed))
    return found


def _weights(ids: list[str], method: str, sizes: list[int], most: float, seed: int) -> dict[str, float]:
    if method == "weights":
        weight = sum(sizes) / (len(sizes) * len(ids))
        return dict.fromkeys(ids, min(most, max(1 / most, weight)))
    if method == "over":
        return dict.fromkeys(ids, float(min(math.floor(most), max(1, round(max(sizes) / len(ids))))))
    kept = math.floor(most * min(sizes))
    ordered = sorted(ids, key=lambda name: (hashlib.sha256(f"{seed}\x00{name}".encode()).digest(), name))
    return {name: 1.0 if place < kept else 0.0 for place, name in enumerate(ordered)}


def label_facts(balances: Iterable[Balance], contradictory: int, examined: Iterable[Examined] | None) -> dict[str, Any]:
    """Return what is known of a set's labels for the facts of a dataset; `examined` None says that nobody looked for suspects."""
    return {
        "balance": [
            {"task": item.task, "counts": dict(item.counts), "ratio": item.ratio, "evenness": item.evenness, "remarks": list(item.remarks)} for item in balances
        ],
        "contradictions": contradictory,
        "examined": None
        if examined is None
        else [
            {"task": item.task, "records": item.records, "suspects": len(item.suspects), "accuracy": item.accuracy, "not_judged": list(item.not_judged)}
            for item in examined
        ],
    }
