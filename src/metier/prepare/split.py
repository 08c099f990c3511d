"""Training, validation and test: whole components of near-duplicates, subjects and groups, never a part of one."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from metier.config import Settings
from metier.errors import Fault, InputError
from metier.prepare.union import components
from metier.records import Record

__all__ = ["EXCLUDED", "ExternalTest", "SplitSettings", "Splits", "Unit", "assign", "moment", "moment_number", "of_fold", "stratum"]

EXCLUDED = "excluded"
"""Where a unit goes that shares a key with an external test set: nowhere."""

_NAMES = ("train", "validation", "test", EXCLUDED)
_DATE = re.compile(r"^\s*(\d{4})(?:\D?(\d{1,2}))?(?:\D?(\d{1,2}))?(?:\D+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?")
_NO_TIME = -1
_IDS_A_BLOCK = 1 << 16


class ExternalTest(Settings):
    """A test set of the user's own: everything else is for training and validation, and is decontaminated against it."""

    path: str | tuple[str, ...]
    """Files of the test set, read as sources are."""


class SplitSettings(Settings):
    """How records are divided; near-duplicates always stay together."""

    test: float | ExternalTest = 0.1
    """Share of the records that is held out for evaluation, or `{path: ...}`: files of a test set of your own."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records that is watched during training."""
    by: tuple[Literal["subject", "group", "prompt"], ...] = ("subject", "group", "prompt")
    """What records that stay in one split have in common. Leave `prompt` out where one prompt is asked of all records."""
    stratify: tuple[Literal["task", "label"], ...] = ("task",)
    """What is shared out evenly: each task, or each label, gets its share of every split as nearly as groups allow."""
    seed: int = 0
    """Another seed gives another division; the same seed the same, whatever the order of the records."""
    time: bool = False
    """Put the newest records into test, the next newest into validation. Every record needs a time then."""
    folds: int | None = Field(default=None, ge=2, le=100)
    """Divide into so many folds of equal size for cross-validation. The first is the test split, the second (if `validation` is above 0) validation."""

    @model_validator(mode="after")
    def _leave_some(self) -> SplitSettings:
        if not 0 <= self.test_share < 1:
            raise ValueError(f"test {self.test} is no share; name one of 0 or more and below 1")
        if self.test_share + self.validation >= 1:
            raise ValueError(f"test {self.test} and validation {self.validation} leave nothing to train on; together they have to be below 1")
        if self.folds and (self.time or isinstance(self.test, ExternalTest)):
            raise ValueError("folds are drawn by chance from all records; leave out `time` and `test: {path: ...}`, or `folds`")
        if self.folds and self.folds < 2 + (self.validation > 0):
            raise ValueError(f"{self.folds} folds leave nothing to train on beside test and validation; name at least 3, or set validation to 0")
        return self

    @property
    def test_share(self) -> float:
        """Return the share of the records that goes to the test split; 0 where the user gives one."""
        return self.test if isinstance(self.test, float | int) else 0.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A row as the splitter sees it: `keys` are what ties it to other rows, `tasks` how many records of each task (or stratum) it gives."""

    id: str
    keys: tuple[str, ...]
    tasks: Mapping[str, int]
    time: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Splits(Mapping[str, str]):
    """The split of every unit by its id, and its fold; in arrays, 2 bytes a unit and its id."""

    ids: NDArray[np.bytes_]
    codes: NDArray[np.uint8]
    folds: NDArray[np.uint8] | None = None

    def __getitem__(self, unit: str) -> str:
        """Return the split of a unit. Raises KeyError for one that was not given."""
        return _NAMES[self.codes[self._place(unit)]]

    def fold(self, unit: str) -> int | None:
        """Return the fold of a unit, from 0, or None where no folds were asked for."""
        return None if self.folds is None else int(self.folds[self._place(unit)])

    def _place(self, unit: str) -> int:
        key = np.bytes_(unit.encode())
        place = int(np.searchsorted(self.ids, key))
        if place == len(self.ids) or self.ids[place] != key:
            raise KeyError(unit)
        return place

    def __iter__(self) -> Iterator[str]:
        """Yield the ids."""
        return (str(unit.decode()) for unit in self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def moment(time: str | None) -> tuple[int, ...] | None:
    """Return year, month, day, hour, minute, second of a date as it is usually written (2024-03-01, 2024/3/1, 20240301, with Han units), or None."""
    found = _DATE.match(time or "")
    return tuple(int(part or 0) for part in found.groups()) if found else None


def moment_number(time: str | None) -> int | None:
    """Return a date as one number, 20240301080509 for five past eight and nine seconds, or None."""
    found = moment(time)
    if found is None:
        return None
    number = 0
    for part, width in zip(found, (1, 100, 100, 100, 100, 100), strict=True):
        number = number * width + part
    return number


def stratum(record: Record, settings: SplitSettings) -> str:
    """Return what a record counts as when strata are shared out: its task, its label, or both."""
    values = {"task": record.task, "label": record.label}
    return "\x00".join(values[name] or "" for name in settings.stratify)


def of_fold(fold: int, *, chosen: int, folds: int, validation: bool) -> str:
    """Return the split of a fold when fold `chosen` is the test split: the next one is validation, where there is validation, the rest is for training."""
    return {0: "test", 1: "validation" if validation else "train"}.get((fold - chosen) % folds, "train")


@dataclass(slots=True)
class _Units:
    """The units as columns, filled one by one: 8 bytes a time, 12 a key, 12 a task, and the id."""

    ids: list[NDArray[np.bytes_]] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    times: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    key_units: array[int] = field(default_factory=lambda: array("I"))
    tasks: array[int] = field(default_factory=lambda: array("I"))
    counts: array[int] = field(default_factory=lambda: array("I"))
    task_units: array[int] = field(default_factory=lambda: array("I"))
    names: dict[str, int] = field(default_factory=dict)

    def add(self, unit: Unit) -> None:
        """Take a unit."""
        number = len(self.times)
        self.waiting.append(unit.id.encode())
        if len(self.waiting) == _IDS_A_BLOCK:
            self.flush()
        found = moment_number(unit.time)
        self.times.append(_NO_TIME if found is None else found)
        for key in unit.keys:
            self.keys.append(int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big"))
            self.key_units.append(number)
        for task, count in unit.tasks.items():
            self.tasks.append(self.names.setdefault(task, len(self.names)))
            self.counts.append(count)
            self.task_units.append(number)

    def flush(self) -> None:
        """Make a block of the ids that wait."""
        if self.waiting:
            self.ids.append(np.array(self.waiting, dtype=np.bytes_))
            self.waiting = []


@dataclass(frozen=True, slots=True)
class _Components:
    """Components in their order: of each unit its component, of each component its size, its newest moment, and what it gives of each task."""

    of: NDArray[np.int64]
    size: NDArray[np.int64]
    newest: NDArray[np.int64]
    bounds: NDArray[np.int64]
    tasks: NDArray[np.int64]
    counts: NDArray[np.int64]

    def needs(self, component: int) -> list[tuple[int, int]]:
        """Return how many records of each task a component gives."""
        first, last = self.bounds[component], self.bounds[component + 1]
        return list(zip(self.tasks[first:last].tolist(), self.counts[first:last].tolist(), strict=True))


def assign(units: Iterable[Unit], settings: SplitSettings, *, external: Iterable[Unit] = ()) -> Splits:
    """Return the split of every unit by its id; units are read once and may come from a generator.

    Units that share a key (or an id) are one component and stay together. Shares are those of records, kept for each stratum as nearly as
    components allow. The order is that of a hash of the seed and the component's smallest id, so it does not depend on
    the order of the units. With `settings.time` the newest components go to test, the next newest to validation. `external` are the units of
    a test set of the user's own: they are `test`, and units that share a key with one are `excluded`.
    Raises InputError if there are fewer components than splits, or a time is missing where it is needed.
    """
    columns = _Units()
    for unit in units:
        columns.add(unit)
    own = len(columns.times)
    for unit in external:
        columns.add(unit)
    columns.flush()
    ids = np.concatenate(columns.ids) if columns.ids else np.zeros(0, dtype="S1")
    label = _labels(columns, ids)
    outside = np.zeros(len(ids), dtype=bool)
    outside[np.isin(label, label[own:])] = True
    found = _components(columns, ids, np.where(outside, -1, label), settings.seed)
    count = len(found.size)
    shares = {f"fold {number}": 1 / settings.folds for number in range(settings.folds)} if settings.folds else _shares(settings)
    if count < len(shares):
        raise InputError(_too_few(own, count, len(shares)))
    if settings.time:
        _check_times(np.asarray(columns.times)[~outside])
        placed = _by_time(found, shares)
    else:
        placed = _by_deficit(found, shares, len(columns.names))
    _fill_empty(placed, found, len(shares))
    return _splits(ids, found.of, placed, own, (settings, list(shares)))


def _splits(ids: NDArray[np.bytes_], of: NDArray[np.int64], placed: NDArray[np.int64], own: int, how: tuple[SplitSettings, list[str]]) -> Splits:
    settings, names = how
    folds = None
    if settings.folds:
        names = [of_fold(fold, chosen=0, folds=settings.folds, validation=settings.validation > 0) for fold in range(settings.folds)]
        folds = placed[of].astype(np.uint8)
    codes = np.array([_NAMES.index(name) for name in names], dtype=np.uint8)[placed[of]] if len(of) else np.zeros(0, dtype=np.uint8)
    codes[of < 0] = _NAMES.index(EXCLUDED)
    codes[own:] = _NAMES.index("test")
    order = np.argsort(ids, kind="stable")
    return Splits(ids[order], codes[order], None if folds is None else folds[order])


def _shares(settings: SplitSettings) -> dict[str, float]:
    """Return the share of each split that is made, held-out ones first."""
    held_out = {name: share for name, share in (("test", settings.test_share), ("validation", settings.validation)) if share > 0}
    return held_out | {"train": 1 - settings.test_share - settings.validation}


def _too_few(units: int, count: int, splits: int) -> Fault:
    return Fault(
        f"{units} rows make {count} group(s) that have to stay together (near-duplicates, same subject, group or prompt)",
        key="prepare.split",
        remedy=f"{splits} splits need at least {splits} such groups: add data, set split.validation or split.test to 0, or name fewer keys in split.by",
    )


def _labels(columns: _Units, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return for each unit the first unit of its component."""
    keys, units = np.asarray(columns.keys), np.asarray(columns.key_units).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    left, right = units[order][:-1][same], units[order][1:][same]
    named = np.argsort(ids, kind="stable")
    twice = ids[named][1:] == ids[named][:-1]
    return components(len(ids), np.concatenate((left, named[:-1][twice])), np.concatenate((right, named[1:][twice])))


def _components(columns: _Units, ids: NDArray[np.bytes_], label: NDArray[np.int64], seed: int) -> _Components:
    """Return the components of units with a label, ordered by a hash of the seed and the smallest id."""
    inside = np.flatnonzero(label >= 0)
    by_id = inside[np.lexsort((ids[inside], label[inside]))]
    labels, first = np.unique(label[by_id], return_index=True)
    smallest = ids[by_id[first]] if len(first) else ids[:0]
    hashes = np.array([int.from_bytes(sha256(f"{seed}\x00{unit.decode()}".encode()).digest()[:8], "big") for unit in smallest], dtype=np.uint64)
    order = np.lexsort((smallest, hashes))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels))
    of = np.full(len(label), -1, dtype=np.int64)
    of[inside] = rank[np.searchsorted(labels, label[inside])]
    newest = np.full(len(labels), _NO_TIME, dtype=np.int64)
    np.maximum.at(newest, of[inside], np.asarray(columns.times)[inside])
    component, task = of[np.asarray(columns.task_units)], np.asarray(columns.tasks).astype(np.int64)
    taken = component >= 0
    kinds = max(1, len(columns.names))
    keys, place = np.unique(component[taken] * kinds + task[taken], return_inverse=True)
    counts = np.bincount(place, weights=np.asarray(columns.counts)[taken], minlength=len(keys)).astype(np.int64)
    size = np.bincount(keys // kinds, weights=counts, minlength=len(labels)).astype(np.int64)
    bounds = np.searchsorted(keys // kinds, np.arange(len(labels) + 1))
    return _Components(of, size, newest, bounds, keys % kinds, counts)


def _by_deficit(found: _Components, shares: Mapping[str, float], kinds: int) -> NDArray[np.int64]:
    """Give each component to the split that lacks most of its tasks; components too big for a held-out split come first."""
    total = np.bincount(found.tasks, weights=found.counts, minlength=kinds)
    missing = [(share * total).tolist() for share in shares.values()]
    smallest = min(sum(lacking) for lacking in missing)
    big = np.flatnonzero(found.size > smallest / 2)
    big = big[np.argsort(-found.size[big], kind="stable")]
    placed = np.zeros(len(found.size), dtype=np.int64)
    for component in (*big.tolist(), *np.flatnonzero(found.size <= smallest / 2).tolist()):
        needs = found.needs(component)
        lacks = [sum(count * lacking[task] for task, count in needs) for lacking in missing]
        place = lacks.index(max(lacks))
        placed[component] = place
        for task, count in needs:
            missing[place][task] -= count
    return placed


def _by_time(found: _Components, shares: Mapping[str, float]) -> NDArray[np.int64]:
    """Fill test with the newest components up to its share of records, then validation; the rest is for training."""
    total = int(found.size.sum())
    rest = np.argsort(-found.newest, kind="stable").tolist()
    placed = np.full(len(found.size), len(shares) - 1, dtype=np.int64)
    taken = 0
    for place, share in enumerate(list(shares.values())[:-1]):
        size, first = 0, taken
        while taken < len(rest) and (taken == first or size + found.size[rest[taken]] / 2 <= share * total):
            size += int(found.size[rest[taken]])
            placed[rest[taken]] = place
            taken += 1
    return placed


def _check_times(times: NDArray[np.int64]) -> None:
    without = int(np.count_nonzero(times == _NO_TIME))
    if without:
        what = f"{without} of {len(times)} rows have no time that can be read as a date, and split.time needs one of each"
        raise InputError(Fault(what, key="prepare.split.time", remedy="name the column by `time` in the source, or set split.time: false"))


def _fill_empty(placed: NDArray[np.int64], found: _Components, splits: int) -> None:
    """Move the smallest component of the fullest split into each empty one."""
    for place in range(splits):
        counts: Sequence[Any] = np.bincount(placed, minlength=splits).tolist()
        if not counts[place]:
            members = np.flatnonzero(placed == counts.index(max(counts)))
            placed[members[np.argmin(found.size[members])]] = place
