"""What is in a dataset, as plain data for people and machines."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from typing import Any

from metier.artifacts import Artifact
from metier.records import Record
from metier.shards import SPLITS, dataset_records, read_drops

__all__ = ["dropped", "examples", "sample", "summary"]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


def summary(dataset: Artifact) -> dict[str, Any]:
    """Return the counts of a dataset, its drops by reason, its check for shared keys and the lengths of its records in characters.

    Lengths are given for each split as {"0%": shortest, ..., "100%": longest}, each an observed value (nearest rank).
    """
    lengths = {split: sorted(_length(record) for record in dataset_records(dataset, split)) for split in SPLITS}
    keys = ("records", "rows", "counts", "drops", "duplicates", "identifiers", "disjoint", "register")
    return {
        "digest": dataset.digest,
        **{key: dataset.facts[key] for key in keys},
        "characters": {split: {f"{share:.0%}": _at(found, share) for share in _QUANTILES} for split, found in lengths.items() if found},
    }


def _length(record: Record) -> int:
    return len(record.text) + sum(len(message.content) for message in record.messages)


def _at(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def sample(dataset: Artifact, split: str, *, count: int = 3, seed: int = 0) -> list[Record]:
    """Return `count` records of a split, chosen by a hash of their id and `seed`."""
    return heapq.nsmallest(count, dataset_records(dataset, split), key=lambda record: hashlib.sha256(f"{seed}\x00{record.id}".encode()).digest())


def examples(dataset: Artifact, split: str, *, count: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Return `count` records of a split, chosen by a hash of their id and `seed`, as their id, task, language and messages."""
    return [
        {
            "id": record.id,
            "task": record.task,
            "language": record.language,
            "messages": [{"role": message.role, "content": message.content} for message in record.messages],
        }
        for record in sample(dataset, split, count=count, seed=seed)
    ]


def dropped(dataset: Artifact, *, reason: str | None = None, count: int = 10) -> dict[str, Any]:
    """Return how many drops there are by reason, and `count` of them with their place (of one reason, if it is named)."""
    counts: Counter[str] = Counter()
    shown: list[dict[str, str]] = []
    for drop in read_drops(dataset.file("drops.parquet")):
        name = drop.reason.split(":")[0]
        counts[name] += 1
        if reason in (None, name) and len(shown) < count:
            place = f"{drop.source.uri}, {drop.source.position}" if drop.source else ""
            shown.append({"id": drop.record_id, "step": drop.step, "reason": drop.reason, "source": place, "content": drop.content})
    return {"counts": dict(sorted(counts.items())), "drops": shown}
