"""How a dataset is written: parts by split, lineage and drops, in one walk over what was decided; the training split last, if it is mixed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from metier.prepare.divide import Place
from metier.prepare.drafts import Draft
from metier.prepare.mix import Item, MixSettings, items, mix
from metier.records import Drop, Record
from metier.shards import Writer, drop_writer, read_records, record_writer, row_writer

__all__ = ["DatasetWriter"]

_RECORDS_A_PART = 50_000
_COUNTED = ("split", "language", "task", "licence")
_TRAIN = "train"
_LINEAGE = {
    "record_id": "string",
    "source_uri": "string",
    "source_digest": "string",
    "source_position": "string",
    "parents": "strings",
    "transforms": "strings",
    "surrogates": "strings",
    "split": "string",
    "subject": "string",
    "cluster": "string",
    "fold": "int",
}


class _Parts:
    """The files of one split, each of at most `_RECORDS_A_PART` records; counts what is in them."""

    def __init__(self, folder: Path, split: str, counts: dict[str, Counter[str]] | None) -> None:
        self.paths: list[Path] = []
        self._folder = folder
        self._split = split
        self._counts = counts
        self._open: Writer[Record] | None = None

    def add(self, record: Record) -> None:
        """Write one record."""
        if self._open is not None and self._open.count == _RECORDS_A_PART:
            self.close()
        if self._open is None:
            self.paths.append(self._folder / f"part-{self._split}-{len(self.paths):05d}.parquet")
            self._open = record_writer(self.paths[-1])
        self._open.add(record)
        if self._counts is not None:
            values = (self._split, record.language or "unknown", record.task or "none", record.source.licence if record.source else "unknown")
            for name, value in zip(_COUNTED, values, strict=True):
                self._counts[name][value] += 1

    def close(self) -> None:
        """Finish the file that is open."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None


class DatasetWriter:
    """Writes records with their lineage, and drops, into a folder, and counts them; a context manager.

    With `settings` of a mix the training records wait in `pool`, a folder of their own, until all are there and their order is known.
    """

    def __init__(self, folder: Path, *, pool: Path, settings: MixSettings | None = None) -> None:
        self._folder = folder
        self._settings = settings
        self._stack = ExitStack()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._parts: dict[str, _Parts] = {}
        self._pool = _Parts(pool, "pool", None)
        self._items: list[Item] = []
        self._general: list[Item] = []
        self._lineage = self._stack.enter_context(row_writer(folder / "lineage.parquet", _LINEAGE))
        self._drops = self._stack.enter_context(drop_writer(folder / "drops.parquet"))
        self._identifiers: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self._mixed: dict[str, Any] = {}
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._pool.close()
        if kind is None and self._settings is not None:
            self._mix(self._settings)
        for parts in self._parts.values():
            parts.close()
        self._stack.__exit__(kind, *rest)

    def add(self, draft: Draft, record: Record, place: Place) -> None:
        """Write the record of a draft, as it may be published, into its split."""
        split = place.split
        if self._settings is not None and split == _TRAIN:
            self._pool.add(record)
            (self._general if record.task == self._settings.replay.task else self._items).extend(items([record], self._settings))
        else:
            self._into(split).add(record)
        if draft.number != self._last:
            self._identifiers.update(dict(_identifiers(draft)))
            self._last = draft.number
        source = record.source
        self._lineage.add(
            {
                "record_id": record.id,
                "source_uri": source.uri if source else None,
                "source_digest": source.digest if source else None,
                "source_position": source.position if source else None,
                "parents": list(record.parents),
                "transforms": list(draft.transforms),
                "surrogates": list(draft.row.surrogates),
                "split": split,
                "subject": record.subject,
                "cluster": place.cluster,
                "fold": place.fold,
            }
        )

    def _into(self, split: str) -> _Parts:
        if split not in self._parts:
            self._parts[split] = _Parts(self._folder, split, self._counts)
        return self._parts[split]

    def _mix(self, settings: MixSettings) -> None:
        """Write the training records in the order of the mix. The pool is read once for each part: memory holds one part."""
        mixed = mix(self._items, settings, self._general)
        for first in range(0, len(mixed.order), _RECORDS_A_PART):
            wanted: Sequence[str] = mixed.order[first : first + _RECORDS_A_PART]
            named = set(wanted)
            found = {record.id: record for path in self._pool.paths for record in read_records(path) if record.id in named}
            for record_id in wanted:
                self._into(_TRAIN).add(found[record_id])
        self._mixed = {"mix": dict(mixed.report)}

    def drop(self, dropped: Drop) -> None:
        """Write one drop."""
        self._reasons[dropped.step][dropped.reason.split(":")[0]] += 1
        self._drops.add(dropped)

    def facts(self) -> dict[str, Any]:
        """Return the counts of what was written. A record that the mix repeats counts as often as it stands there."""
        total: Counter[str] = Counter()
        for reasons in self._reasons.values():
            total.update(reasons)
        return {
            "records": sum(self._counts["split"].values()),
            "counts": {name: dict(sorted(found.items())) for name, found in self._counts.items()},
            "drops": dict(sorted(total.items())),
            "drops_by_step": {step: dict(sorted(reasons.items())) for step, reasons in sorted(self._reasons.items())},
            "identifiers": dict(sorted(self._identifiers.items())),
            **self._mixed,
        }


def _identifiers(draft: Draft) -> Iterator[tuple[str, int]]:
    for item in draft.row.transforms:
        if item.startswith("deidentify:"):
            kind, _, count = item.removeprefix("deidentify:").partition("=")
            yield kind, int(count)
