"""Training, validation and test: whole components of near-duplicates, subjects and groups, never a part of one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator

from metier.config import Settings
from metier.errors import Fault, InputError
from metier.prepare.union import Sets

__all__ = ["SplitSettings", "Unit", "assign", "moment"]

_DATE = re.compile(r"^\s*(\d{4})(?:\D?(\d{1,2}))?(?:\D?(\d{1,2}))?(?:\D+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?")


class SplitSettings(Settings):
    """How records are divided; near-duplicates always stay together."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records that is held out for evaluation."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records that is watched during training."""
    by: tuple[Literal["subject", "group", "prompt"], ...] = ("subject", "group", "prompt")
    """What records that stay in one split have in common. Leave `prompt` out where one prompt is asked of all records."""
    seed: int = 0
    """Another seed gives another division; the same seed the same, whatever the order of the records."""
    time: bool = False
    """Put the newest records into test, the next newest into validation. Every record needs a time then."""

    @model_validator(mode="after")
    def _leave_some(self) -> SplitSettings:
        if self.test + self.validation >= 1:
            raise ValueError(f"test {self.test} and validation {self.validation} leave nothing to train on; together they have to be below 1")
        return self


@dataclass(frozen=True, slots=True)
class Unit:
    """A row as the splitter sees it: `keys` are what ties it to other rows, `tasks` how many records of each task it gives."""

    id: str
    keys: tuple[str, ...]
    tasks: Mapping[str, int]
    time: str | None = None


@dataclass(slots=True)
class _Component:
    order: str
    units: list[Unit] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)
    newest: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return sum(self.tasks.values())


def moment(time: str | None) -> tuple[int, ...] | None:
    """Return year, month, day, hour, minute, second of a date as it is usually written (2024-03-01, 2024/3/1, 20240301, with Han units), or None."""
    found = _DATE.match(time or "")
    return tuple(int(part or 0) for part in found.groups()) if found else None


def assign(units: Sequence[Unit], settings: SplitSettings) -> dict[str, str]:
    """Return the split of every unit by its id.

    Units that share a key are one component and stay together. Shares are those of records, kept for each task as nearly as
    components allow. The order is that of a hash of the seed and the component's smallest id, so it does not depend on
    the order of the units. With `settings.time` the newest components go to test, the next newest to validation.
    Raises InputError if there are fewer components than splits, or a time is missing where it is needed.
    """
    wanted = [name for name, share in (("test", settings.test), ("validation", settings.validation)) if share > 0] + ["train"]
    components = _components(units, settings)
    if len(components) < len(wanted):
        raise InputError(_too_few(len(units), len(components), len(wanted)))
    if settings.time:
        _check_times(units)
        placed = _by_time(components, settings, wanted)
    else:
        placed = _by_deficit(components, settings, wanted)
    _fill_empty(placed, wanted)
    return {unit.id: name for name, parts in placed.items() for component in parts for unit in component.units}


def _too_few(units: int, components: int, splits: int) -> Fault:
    return Fault(
        f"{units} rows make {components} group(s) that have to stay together (near-duplicates, same subject, group or prompt)",
        key="prepare.split",
        remedy=f"{splits} splits need at least {splits} such groups: add data, set split.validation or split.test to 0, or name fewer keys in split.by",
    )


def _components(units: Sequence[Unit], settings: SplitSettings) -> list[_Component]:
    sets: Sets[str] = Sets()
    for unit in units:
        for key in unit.keys:
            sets.join(f"unit\x00{unit.id}", key)
    found: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        found[sets.root(f"unit\x00{unit.id}")].append(unit)
    components = []
    for members in found.values():
        members.sort(key=lambda unit: unit.id)
        order = hashlib.sha256(f"{settings.seed}\x00{members[0].id}".encode()).hexdigest()
        tasks: Counter[str] = Counter()
        for unit in members:
            tasks.update(unit.tasks)
        newest = max((moment(unit.time) or () for unit in members), default=())
        components.append(_Component(order, members, tasks, newest))
    return sorted(components, key=lambda component: component.order)


def _targets(components: Sequence[_Component], settings: SplitSettings, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return how many records of each task each split should get."""
    total: Counter[str] = Counter()
    for component in components:
        total.update(component.tasks)
    share = {"test": settings.test, "validation": settings.validation, "train": 1 - settings.test - settings.validation}
    return {name: {task: share[name] * count for task, count in total.items()} for name in wanted}


def _by_deficit(components: Sequence[_Component], settings: SplitSettings, wanted: Sequence[str]) -> dict[str, list[_Component]]:
    """Give each component to the split that lacks most of its tasks; components too big for a held-out split come first."""
    missing = _targets(components, settings, wanted)
    smallest = min(sum(missing[name].values()) for name in wanted)
    big = sorted((item for item in components if item.size > smallest / 2), key=lambda item: -item.size)
    small = [item for item in components if item.size <= smallest / 2]
    placed: dict[str, list[_Component]] = {name: [] for name in wanted}
    for component in (*big, *small):
        name = max(wanted, key=lambda name: sum(count * missing[name][task] for task, count in component.tasks.items()))
        placed[name].append(component)
        for task, count in component.tasks.items():
            missing[name][task] -= count
    return placed


def _by_time(components: Sequence[_Component], settings: SplitSettings, wanted: Sequence[str]) -> dict[str, list[_Component]]:
    """Fill test with the newest components up to its share of records, then validation; the rest is for training."""
    total = sum(component.size for component in components)
    shares = {"test": settings.test, "validation": settings.validation}
    rest = sorted(components, key=lambda component: component.newest, reverse=True)
    placed: dict[str, list[_Component]] = {name: [] for name in wanted}
    for name in wanted[:-1]:
        size = 0
        while rest and size + rest[0].size / 2 <= shares[name] * total:
            size += rest[0].size
            placed[name].append(rest.pop(0))
        if not placed[name]:
            placed[name].append(rest.pop(0))
    placed["train"] = rest
    return placed


def _check_times(units: Sequence[Unit]) -> None:
    without = sum(moment(unit.time) is None for unit in units)
    if without:
        what = f"{without} of {len(units)} rows have no time that can be read as a date, and split.time needs one of each"
        raise InputError(Fault(what, key="prepare.split.time", remedy="name the column by `time` in the source, or set split.time: false"))


def _fill_empty(placed: dict[str, list[_Component]], wanted: Sequence[str]) -> None:
    """Move the smallest component of the fullest split into each empty one."""
    for name in wanted:
        if not placed[name]:
            giver = max(wanted, key=lambda other: len(placed[other]))
            smallest = min(placed[giver], key=lambda component: (component.size, component.order))
            placed[giver].remove(smallest)
            placed[name].append(smallest)
