"""Training, validation and test: from drafts to the split of each row, and what leaves because of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

from metier.errors import Fault, InputError
from metier.packs.spec import Pack
from metier.prepare.check import prompt_key
from metier.prepare.chunks import Refined, Rows
from metier.prepare.decontaminate import Reference, decontaminate
from metier.prepare.dedup import Duplicates
from metier.prepare.drafts import Draft, Drafts
from metier.prepare.outside import Outside
from metier.prepare.settings import PrepareSettings
from metier.prepare.split import ExternalTest, Splits, SplitSettings, Unit, assign, stratum
from metier.progress import Progress
from metier.records import Record, strings

__all__ = ["Division", "Kept", "Place", "divide", "external_rows"]

_EXCLUDED = "excluded"
_TEST = "test"


@dataclass(frozen=True, slots=True, eq=False)
class Kept(Mapping[int, str]):
    """The rows that duplicates make leave, without those of a test set of the user's own: that stays as it is."""

    dropped: Mapping[int, str]
    external: frozenset[int]

    def __getitem__(self, number: int) -> str:
        """Return the reason. Raises KeyError for a row that stays."""
        if number in self.external:
            raise KeyError(number)
        return self.dropped[number]

    def __contains__(self, number: object) -> bool:
        """Return whether a row leaves."""
        return number not in self.external and number in self.dropped

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the rows that leave."""
        return (number for number in self.dropped if number not in self.external)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record belongs: its split, the name of its cluster of near-duplicates, and its fold where folds were asked for."""

    split: str
    cluster: str
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class Division:
    """The split of each row by its id, the name of each cluster, and what is known of it."""

    splits: Splits
    names: Mapping[int, str]
    units: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    def place(self, draft: Draft, cluster: int) -> Place:
        """Return where a draft belongs."""
        row = draft.row.record.id
        return Place(self.splits[row], self.names[cluster], self.splits.fold(row))


def external_rows(rows: Rows, settings: SplitSettings) -> frozenset[int]:
    """Return the numbers of the rows that belong to the user's own test set: those of the source files that `split.test.path` names.

    Raises InputError for a name that no row's source has.
    """
    if not isinstance(settings.test, ExternalTest):
        return frozenset()
    patterns = (settings.test.path,) if isinstance(settings.test.path, str) else settings.test.path
    found: set[int] = set()
    used: set[str] = set()
    for number, row in rows:
        uri = row.record.source.uri if row.record.source else ""
        hits = [pattern for pattern in patterns if fnmatch(uri, pattern)]
        if hits:
            found.add(number)
            used.update(hits)
    missing = [
        Fault(f"no row comes from {name}", key="prepare.split.test.path", remedy="name the file among `sources` too") for name in patterns if name not in used
    ]
    if missing:
        raise InputError(missing)
    return frozenset(found)


def divide(
    drafts: Drafts, rows: Rows, duplicates: Duplicates, external: frozenset[int], settings: PrepareSettings, *, pack: Pack, outside: Outside, progress: Progress
) -> Division:
    """Return the split of every row that gives a draft, and remove the drafts that may not stay because of it.

    Rows that share a key with a test set of the user's own leave, and so do training and validation rows that hold a test item.
    Raises InputError where nothing is left or there is too little to divide.
    """
    names: dict[int, str] = {}
    own, others = _units(drafts, duplicates, external, settings, names)
    if not own and not others:
        raise InputError(_nothing_left(drafts))
    splits = assign(own, settings.split, external=others)
    for draft in list(_of(drafts, lambda draft: splits[draft.row.record.id] == _EXCLUDED)):
        drafts.remove(draft.record.id, "split", "shares_with_test_set")
    facts = _decontaminated(drafts, rows, splits, settings, pack=pack, outside=outside, progress=progress)
    return Division(splits, names, len(own) + len(others), facts)


def _of(drafts: Drafts, wanted: Callable[[Draft], bool]) -> Iterator[Draft]:
    return (draft for draft in drafts if wanted(draft))


def _units(drafts: Drafts, duplicates: Duplicates, external: frozenset[int], settings: PrepareSettings, names: dict[int, str]) -> tuple[list[Unit], list[Unit]]:
    """Return the rows that give at least one draft, as the splitter sees them: the project's, and those of the user's test set.

    `names` gets a name for each cluster: the smallest id among its rows, so that it does not depend on the rows' order.
    """
    own: list[Unit] = []
    others: list[Unit] = []
    for number, group in groupby(drafts, key=lambda draft: draft.number):
        found = list(group)
        row, cluster = found[0].row.record, int(duplicates.clusters[number])
        prompts = {prompt_key(draft.record) for draft in found} if "prompt" in settings.split.by else set()
        tasks = Counter(stratum(draft.record, settings.split) for draft in found)
        unit = Unit(row.id, _ties(row, cluster, prompts, settings), tasks, row.time)
        (others if number in external else own).append(unit)
        names[cluster] = min(names.get(cluster, row.id), row.id)
    return own, others


def _ties(record: Record, cluster: int, prompts: set[bytes], settings: PrepareSettings) -> tuple[str, ...]:
    ties = [f"cluster\x00{cluster}", *(f"prompt\x00{prompt.hex()}" for prompt in sorted(prompts))]
    for name, value in (("subject", record.subject), ("group", record.group)):
        if value is not None and name in settings.split.by:
            ties.append(f"{name}\x00{value}")
    return tuple(ties)


def _nothing_left(drafts: Drafts) -> Fault:
    reasons = Counter(drafts.reasons())
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "the sources hold no rows"
    remedy = "check `languages`, the `columns` of the sources and what the pack's templates need (metier packs list)"
    return Fault(f"no record is left: {said}", key="prepare", remedy=remedy)


class _Taught:
    """The rows of training and validation, for the search for test items."""

    def __init__(self, rows: Rows, wanted: set[int]) -> None:
        self._rows = rows
        self._wanted = wanted

    def __iter__(self) -> Iterator[tuple[int, Refined]]:
        return ((number, row) for number, row in self._rows if number in self._wanted)


def _decontaminated(
    drafts: Drafts, rows: Rows, splits: Splits, settings: PrepareSettings, *, pack: Pack, outside: Outside, progress: Progress
) -> dict[str, Any]:
    references = [*_references(settings, pack, outside), *_held_out(drafts, splits, settings)]
    if not settings.decontaminate.enabled or not references:
        return {"decontamination": {"references": {}, "rows": 0}}
    taught: dict[int, list[str]] = {}
    for draft in drafts:
        if splits[draft.row.record.id] not in (_TEST, _EXCLUDED):
            taught.setdefault(draft.number, []).append(draft.record.id)
    found = decontaminate(_Taught(rows, set(taught)), references, settings.decontaminate, progress)
    for number, reason in found.reasons.items():
        for record_id in taught[number]:
            drafts.remove(record_id, "decontaminate", f"contaminated:{reason}")
    facts = {name: {"items": count, **found.counts.get(name, {})} for name, count in found.items.items()}
    return {"decontamination": {"references": facts, "rows": len(found.reasons), "boilerplate": found.boilerplate}}


def _held_out(drafts: Drafts, splits: Splits, settings: PrepareSettings) -> Iterator[Reference]:
    if settings.decontaminate.held_out or isinstance(settings.split.test, ExternalTest):
        texts = ["\n".join(strings(draft.row.record)) for draft in drafts if splits[draft.row.record.id] == _TEST]
        yield Reference("the test split", texts)


def _references(settings: PrepareSettings, pack: Pack, outside: Outside) -> Iterator[Reference]:
    """Yield the items of the pack's own task files, of the project's, and of the files that the settings name."""
    files: list[tuple[str, Path]] = [(name, outside.root / name) for name in (*settings.decontaminate.against, *outside.tests)]
    files += [(spec.task, pack.folder / spec.dataset_path) for spec in pack.tasks if spec.dataset_path != "dataset"]
    for name, path in dict(files).items():
        yield Reference(name, list(_items(path)))


def _items(path: Path) -> Iterator[str]:
    """Yield the items of a test file, a line each: all texts of an object, or the line itself. Raises InputError for a file that is no text."""
    try:
        # Only a line feed ends a line: JSON may hold U+2028 and U+0085, at which splitlines() would cut an object in two.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(f"cannot be read as a test file: {type(error).__name__}", path, remedy="write UTF-8, JSON Lines or an item a line")) from None
    for line in lines:
        if line.strip():
            yield "\n".join(_texts(line)) if line.lstrip().startswith("{") else line


def _texts(line: str) -> Sequence[str]:
    try:
        return list(strings(Record(id="", metadata=json.loads(line))))
    except (ValueError, RecursionError):
        return [line]
