"""How a dataset is written: parts by split, lineage and drops, in one walk over what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from metier.prepare.drafts import Draft
from metier.records import Drop, Record
from metier.shards import Writer, drop_writer, record_writer, row_writer

__all__ = ["DatasetWriter"]

_RECORDS_A_PART = 50_000
_COUNTED = ("split", "language", "task", "licence")
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
}


class _Parts:
    """The files of one split, each of at most `_RECORDS_A_PART` records."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder
        self._split = split
        self._number = 0
        self._open: Writer[Record] | None = None

    def add(self, record: Record) -> None:
        if self._open is not None and self._open.count == _RECORDS_A_PART:
            self.close()
        if self._open is None:
            self._open = record_writer(self._folder / f"part-{self._split}-{self._number:05d}.parquet")
            self._number += 1
        self._open.add(record)

    def close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None


class DatasetWriter:
    """Writes records with their lineage, and drops, into a folder, and counts them; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._parts: dict[str, _Parts] = {}
        self._lineage = self._stack.enter_context(row_writer(folder / "lineage.parquet", _LINEAGE))
        self._drops = self._stack.enter_context(drop_writer(folder / "drops.parquet"))
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._identifiers: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        for parts in self._parts.values():
            parts.close()
        self._stack.__exit__(*failure)

    def add(self, draft: Draft, record: Record, *, split: str, cluster: str) -> None:
        """Write the record of a draft, as it may be published, into a split."""
        if split not in self._parts:
            self._parts[split] = _Parts(self._folder, split)
        self._parts[split].add(record)
        values = (split, record.language or "unknown", record.task or "none", record.source.licence if record.source else "unknown")
        for name, value in zip(_COUNTED, values, strict=True):
            self._counts[name][value] += 1
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
                "cluster": cluster,
            }
        )

    def drop(self, dropped: Drop) -> None:
        """Write one drop."""
        self._reasons[dropped.reason.split(":")[0]] += 1
        self._drops.add(dropped)

    def facts(self) -> dict[str, Any]:
        """Return the counts of what was written."""
        return {
            "records": sum(self._counts["split"].values()),
            "counts": {name: dict(sorted(found.items())) for name, found in self._counts.items()},
            "drops": dict(sorted(self._reasons.items())),
            "identifiers": dict(sorted(self._identifiers.items())),
        }


def _identifiers(draft: Draft) -> Iterator[tuple[str, int]]:
    for item in draft.row.transforms:
        if item.startswith("deidentify:"):
            kind, _, count = item.removeprefix("deidentify:").partition("=")
            yield kind, int(count)
