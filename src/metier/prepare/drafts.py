"""Drafts: the conversations of all rows that stayed, and what is decided on them before they are written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from metier.prepare.chunks import Refined, Rows
from metier.prepare.compose import conversation_key
from metier.prepare.drops import drop
from metier.records import Drop, Record

__all__ = ["Draft", "Drafts"]


@dataclass(frozen=True, slots=True)
class Draft:
    """One conversation on its way into the dataset, the number of its row, and what was done to it after the row's own steps."""

    number: int
    row: Refined
    record: Record
    notes: tuple[str, ...]

    @property
    def transforms(self) -> tuple[str, ...]:
        """Everything that was done, from the source row to this conversation."""
        return (*self.row.transforms, *self.notes)


class Drafts:
    """Iterates the drafts that nothing has removed, in the order of the sources; they are read from disk each time.

    `duplicates` says which row numbers leave, and why. What a later step removes is kept here by the draft's id with step and
    reason, so memory holds what leaves, not what stays.
    """

    def __init__(self, rows: Rows, duplicates: Mapping[int, str], publish: Callable[[Record], Record]) -> None:
        self._rows = rows
        self._duplicates = duplicates
        self.publish = publish
        self._removed: dict[str, tuple[str, str]] = {}

    def __iter__(self) -> Iterator[Draft]:
        """Yield what is left."""
        for entry in self.outcome(ledger=False):
            if isinstance(entry, Draft):
                yield entry

    def remove(self, record_id: str, step: str, reason: str) -> None:
        """Take a draft out; the first reason given stands."""
        self._removed.setdefault(record_id, (step, reason))

    def remove_repeated(self, external: Container[int] = frozenset()) -> None:
        """Take out conversations that two rows give word for word: the smallest id stays.

        `external` are the numbers of the rows of a test set of the user's own: these stay, and the others leave for them.
        """
        seen: dict[bytes, tuple[bool, str]] = {}
        for draft in self:
            key = hashlib.sha256(repr(conversation_key(draft.record)).encode()).digest()[:16]
            mine = (draft.number not in external, draft.record.id)
            first, second = sorted((seen.get(key, mine), mine))
            if first != second and second[0]:
                self.remove(second[1], "compose", "repeated_conversation")
            seen[key] = first

    def reasons(self) -> Iterator[str]:
        """Yield, for everything that left, why: the first word of its reason."""
        for entry in self.outcome():
            if isinstance(entry, Drop):
                yield "duplicate" if entry.step == "dedup" else entry.reason.split(":")[0]

    def outcome(self, *, ledger: bool = True) -> Iterator[Draft | Drop]:
        """Yield, in the order of the sources, every draft that is left and a drop for everything that left.

        What left is malformed source rows, rows that a step refused, duplicates, rows that no template fits, and drafts that
        a later step removed, each as it may be published. Without `ledger` drops are not made.
        """
        number = -1
        for entry in self._rows.entries():
            if isinstance(entry, Drop):
                if ledger:
                    yield entry
                continue
            number += 1
            if number in self._duplicates:
                if ledger:
                    yield drop(self.publish(entry.record), "dedup", self._duplicates[number])
                continue
            if not entry.composed and ledger:
                yield drop(self.publish(entry.record), "compose", "no_template_fits")
            for record, notes in entry.composed:
                if record.id not in self._removed:
                    yield Draft(number, entry, record, notes)
                elif ledger:
                    yield drop(self.publish(record), *self._removed[record.id])
