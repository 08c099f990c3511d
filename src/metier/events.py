"""The event: one thing that somebody may be asked to account for, as it is handed to a recorder.

What everybody may see of it (`facts`: digests, names, numbers) is kept apart from what only the owner may see (`body`:
questions and answers). The ledger stores the first in the open and the second encrypted, bound by a salted commitment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

__all__ = ["Event", "EventKind", "Record", "now"]

EventKind: TypeAlias = Literal["artifact", "approval", "release", "export", "sweep", "prediction", "access", "erasure"]


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what and when; `subject` names the person whom `body` is about, so that it can be erased for them alone."""

    kind: EventKind
    actor: str
    time: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    subject: str | None = None


Record: TypeAlias = Callable[[Event], int]
"""Keeps an event and returns its number in the log once it is durable. Raises MetierError if it could not be kept."""


def now() -> str:
    """Return the present time as an event carries it: RFC 3339, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
