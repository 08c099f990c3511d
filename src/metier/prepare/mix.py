"""How often each training record is seen: temperature sampling over groups, weights, class balance, replay of general data, curriculum."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from metier.config import Settings
from metier.errors import Fault, InputError
from metier.proportions import apportion, shares
from metier.records import Record

__all__ = ["CurriculumSettings", "Item", "Mix", "MixSettings", "ReplaySettings", "items", "mix"]

By = Literal["task", "source", "language", "domain"]
_BY: tuple[By, ...] = ("task", "source", "language", "domain")


class CurriculumSettings(Settings):
    """The order in which records are seen."""

    by: str | None = None
    """`length`, or the name of a number in the metadata (`difficulty`, `perplexity`, `quality` ...); left out, the order is random."""
    descending: bool = False
    """Take high values first: for a score by which the easy ones have the high values, such as a quality score."""
    buckets: int = Field(default=5, ge=1)
    """Steps from easy to hard; within a step the order is random, so that no step holds one kind of record alone."""
    missing: Literal["error", "hard"] = "error"
    """What becomes of a record without the number: an error, or the last step."""


class ReplaySettings(Settings):
    """General data among the domain's, against forgetting."""

    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the general data in the result."""
    task: str = "replay"
    """Which records are general data: those of this task. A source names its task itself (`task: replay`)."""
    of: Literal["records", "tokens"] = "records"
    """What the share is a share of. Tokens are the sizes that the caller gives, else characters."""


class MixSettings(Settings):
    """How groups of records are mixed."""

    by: By = "task"
    """What makes a group."""
    alpha: float = Field(default=0.6, ge=0, le=1)
    """A group of n records gets a share proportional to n to this power: 1 as it is, 0 all groups alike (XLM used 0.7, mT5 0.3)."""
    weights: dict[str, float] = {}
    """Factor on a group's share, by name; 0 leaves the group out."""
    balance_labels: bool = False
    """Within a group give every label the same share (for tasks that choose among labels)."""
    epochs: float = Field(default=1.0, gt=0)
    """Size of the result, as a multiple of the domain's records."""
    replay: ReplaySettings = ReplaySettings()
    """General data."""
    curriculum: CurriculumSettings = CurriculumSettings()
    """Order."""
    seed: int = 0
    """Another seed gives another order and other repeats."""

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, weights: dict[str, float]) -> dict[str, float]:
        if wrong := sorted(name for name, weight in weights.items() if weight < 0):
            raise ValueError(f"a weight is 0 or more: {', '.join(wrong)}")
        return weights


@dataclass(frozen=True, slots=True)
class Item:
    """What mixing needs to know of a record."""

    id: str
    group: str
    label: str | None = None
    size: int = 1
    difficulty: float | None = None


@dataclass(frozen=True, slots=True)
class Mix:
    """The plan: record ids in the order of training, with repeats, how often each is seen, and the report."""

    order: tuple[str, ...]
    repeats: Mapping[str, int]
    report: Mapping[str, Any]


def items(records: Iterable[Record], settings: MixSettings, *, size: Callable[[Record], int] | None = None) -> list[Item]:
    """Return what mixing needs of the records. `size` gives the tokens of a record (default: its characters).

    Raises InputError that names the records without the number that the curriculum goes by.
    """
    by = settings.curriculum.by
    found, lacking = [], []
    for record in records:
        length = sum(len(message.content) for message in record.messages) + len(record.text)
        difficulty = float(length) if by == "length" else None if by is None else _number(record.metadata.get(by))
        if by is not None and difficulty is None:
            lacking.append(record.id)
        found.append(Item(record.id, _group(record, settings.by), record.label, size(record) if size else length, difficulty))
    if lacking and settings.curriculum.missing == "error":
        shown = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
        remedy = "compute it before (quality), or set missing: hard"
        raise InputError(Fault(f"{len(lacking)} records have no number {by!r} in their metadata: {shown}", key="prepare.mix.curriculum.by", remedy=remedy))
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _group(record: Record, by: By) -> str:
    if by == "source":
        return record.source.uri if record.source else "unknown"
    return getattr(record, by) or "unknown"


def mix(domain: Sequence[Item], settings: MixSettings, general: Sequence[Item] = ()) -> Mix:
    """Return the order of training for the items of the domain and, as replay, the general ones.

    Every group gets its share of ``epochs x len(domain)`` places. A group with more places than items repeats them evenly: no item
    comes k+2 times before all came k+1 times; with fewer, a random part is taken. The result does not depend on the order of the
    items. Raises InputError for weights of unknown groups, doubled ids, and replay without general items.
    """
    _check(domain, general, settings)
    groups = _by_group(domain)
    total = max(1, round(settings.epochs * len(domain)))
    wanted = shares({name: len(found) for name, found in groups.items()}, alpha=settings.alpha, weights=settings.weights, key="prepare.mix")
    seats = apportion(total, wanted)
    taken = [item for name in sorted(groups) for item in _fill(groups[name], seats[name], settings)]
    replayed = _replay(taken, sorted(general, key=lambda item: item.id), settings)
    chosen = [*taken, *replayed]
    order = tuple(item.id for item in _ordered(chosen, settings))
    return Mix(order, dict(sorted(Counter(order).items())), _report(domain, taken, replayed, general, wanted))


def _check(domain: Sequence[Item], general: Sequence[Item], settings: MixSettings) -> None:
    counts = Counter(item.id for item in (*domain, *general))
    if doubled := sorted(name for name, count in counts.items() if count > 1):
        raise InputError(Fault(f"{len(doubled)} record ids stand twice: {', '.join(doubled[:3])}", remedy="every record is given once"))
    if not domain:
        raise InputError(Fault("there are no records to mix", key="prepare.mix"))
    if settings.replay.share and not any(item.size for item in general):
        remedy = "name a replay source, or set the share to 0"
        raise InputError(Fault(f"the replay share is {settings.replay.share:g}, and there is no general data", key="prepare.mix.replay", remedy=remedy))


def _by_group(domain: Sequence[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in sorted(domain, key=lambda item: item.id):
        groups.setdefault(item.group, []).append(item)
    return groups


def _key(settings: MixSettings, *parts: object) -> bytes:
    return hashlib.sha256("\x00".join(map(str, (settings.seed, *parts))).encode()).digest()


def _fill(pool: Sequence[Item], places: int, settings: MixSettings) -> list[Item]:
    """Return `places` items of a group; with `balance_labels` every label gets the same number of places, as far as whole numbers go."""
    if settings.balance_labels and len(labels := sorted({item.label or "" for item in pool})) > 1:
        seats = apportion(places, dict.fromkeys(labels, 1.0))
        return [item for label in labels for item in _cycle([one for one in pool if (one.label or "") == label], seats[label], settings)]
    return _cycle(pool, places, settings)


def _cycle(pool: Sequence[Item], places: int, settings: MixSettings) -> list[Item]:
    """Return `places` items: the whole pool as often as it fits, then a random part of it."""
    whole, rest = divmod(places, len(pool))
    shuffled = sorted(pool, key=lambda item: _key(settings, "part", item.id))
    return [*list(pool) * whole, *shuffled[:rest]]


def _replay(taken: Sequence[Item], general: Sequence[Item], settings: MixSettings) -> list[Item]:
    share = settings.replay.share
    if not share:
        return []
    if settings.replay.of == "records":
        return _cycle(general, round(len(taken) * share / (1 - share)), settings)
    wanted = sum(item.size for item in taken) * share / (1 - share)
    shuffled = sorted(general, key=lambda item: _key(settings, "part", item.id))
    chosen: list[Item] = []
    size = number = 0
    while size < wanted:
        item = shuffled[number % len(shuffled)]
        # stop on the side of the wanted size that is nearer
        if size + item.size - wanted > wanted - size and chosen:
            break
        chosen.append(item)
        size, number = size + item.size, number + 1
    return chosen


def _ordered(chosen: Sequence[Item], settings: MixSettings) -> list[Item]:
    """Return the items in random order, or from easy to hard in steps; general items without a difficulty are spread over all steps."""
    seen: Counter[str] = Counter()
    numbered = []
    for item in chosen:
        numbered.append((item, seen[item.id]))
        seen[item.id] += 1
    # the copy's number first: repeats of one record are spread over the passes, not side by side
    shuffled = sorted(numbered, key=lambda pair: _key(settings, "order", pair[0].id, pair[1]))
    if settings.curriculum.by is None:
        return [item for item, _ in shuffled]
    sign = -1.0 if settings.curriculum.descending else 1.0
    rated = sorted((pair for pair in shuffled if pair[0].difficulty is not None), key=lambda pair: sign * (pair[0].difficulty or 0.0))
    unrated = [pair for pair in shuffled if pair[0].difficulty is None]
    buckets = settings.curriculum.buckets
    steps: list[list[tuple[Item, int]]] = [[] for _ in range(buckets)]
    for place, pair in enumerate(rated):
        steps[place * buckets // len(rated)].append(pair)
    for place, pair in enumerate(unrated):
        steps[buckets - 1 if settings.curriculum.missing == "hard" else place % buckets].append(pair)
    return [item for step in steps for item, _ in sorted(step, key=lambda pair: _key(settings, "step", pair[0].id, pair[1]))]


def _report(domain: Sequence[Item], taken: Sequence[Item], replayed: Sequence[Item], general: Sequence[Item], wanted: Mapping[str, float]) -> dict[str, Any]:
    before, after = Counter(item.group for item in domain), Counter(item.group for item in taken)
    repeats = Counter(item.id for item in taken)
    groups = {
        name: {
            "records": before[name],
            "share_before": round(before[name] / len(domain), 6),
            "share_wanted": round(wanted[name], 6),
            "places": after[name],
            "share_after": round(after[name] / len(taken), 6),
            "mean_repeats": round(after[name] / before[name], 4),
        }
        for name in sorted(before)
    }
    size, replay_size = sum(item.size for item in taken), sum(item.size for item in replayed)
    total = len(taken) + len(replayed)
    return {
        "records": len(domain),
        "places": total,
        "groups": groups,
        "labels_before": dict(sorted(Counter(item.label for item in domain if item.label).items())),
        "labels_after": dict(sorted(Counter(item.label for item in taken if item.label).items())),
        "unseen": len(domain) - len(repeats),
        "most_repeats": max(repeats.values(), default=0),
        "replay": {
            "records": len(general),
            "places": len(replayed),
            "share_of_records": round(len(replayed) / total, 6),
            "share_of_size": round(replay_size / (size + replay_size), 6) if size + replay_size else 0.0,
        },
    }
