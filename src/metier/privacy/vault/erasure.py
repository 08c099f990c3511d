"""Forgets one person: their key is destroyed, and everything that is left is searched for what it opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.digest import digest_of
from metier.errors import PrivacyError
from metier.events import Event, now
from metier.people import checked_name
from metier.privacy.vault.tables import FILE, guarded, scrub
from metier.privacy.vault.vault import Vault, checked_purpose

__all__ = ["Erasure", "erase"]

_BLOCK = 1 << 20
_SHORTEST_SEARCHED = 4
"""Bytes that an original has at least to be searched for: a shorter one stands everywhere by chance."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was destroyed, and what the search of everything that is left looked at."""

    subject: str
    """What the log calls the person: a digest of their keyed name in the vault."""
    originals: int
    files: int
    """Files that were searched."""
    bytes: int
    not_searched: int
    """Originals too short to be searched for."""
    still_in: tuple[str, ...]
    """Files in which something of the person was found."""


def erase(vault: Vault, subject: str | None, *, purpose: str, name: str, record: Callable[[Event], Any], also: Sequence[Path] = ()) -> Erasure:
    """Destroy what the vault keeps of a person and search what is left: the vault's files and the files and folders in `also`.

    In the vault's own files nothing may be left (PrivacyError if something is); elsewhere, in backups or data, files that still hold
    the destroyed bytes or an original in plain text (UTF-8) are named. Tokens that stand in data stay there; nothing opens them any more.
    """
    actor, why = checked_name(name, key="name"), checked_purpose(purpose)
    # Not the name under which the person stands in the vault: nothing may still hold that one afterwards.
    person = digest_of(vault.subject_id(subject))[:16]
    record(Event("erasure", actor, now(), {"action": "vault erase", "purpose": why, "person": person}))
    try:
        gone, values = vault.remove(subject)
    finally:
        # Also where there is nothing (any more): an earlier erasure may have been stopped between the two.
        with guarded(vault.folder / FILE, "overwrite parts of"):
            scrub(vault.engine)
    originals = [value.encode() for value in values if len(value.encode()) >= _SHORTEST_SEARCHED]
    own = list(_files([vault.folder]))
    left = [path for path in own if _holds(path, [*gone, *originals])]
    if left:
        raise PrivacyError(f"something of the person is still in {', '.join(map(str, left))}\n    -> close other programs that use the vault and erase again")
    elsewhere = [path for path in _files(also) if path not in own]
    still = tuple(str(path) for path in elsewhere if _holds(path, [gone[0], *gone[2:], *originals]))
    searched = [*own, *elsewhere]
    return Erasure(person, len(values), len(searched), sum(path.stat().st_size for path in searched), len(values) - len(originals), still)


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from (path for path in sorted(place.rglob("*")) if path.is_file())
        elif place.is_file():
            yield place
        else:
            raise PrivacyError(f"there is no {place} to search\n    -> check the path")


def _holds(path: Path, sought: Sequence[bytes]) -> bool:
    overlap = max(map(len, sought), default=1) - 1
    before = b""
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            window = before + block
            if any(item in window for item in sought):
                return True
            before = window[-overlap:] if overlap else b""
    return False
