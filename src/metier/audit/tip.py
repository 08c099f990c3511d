"""The end of the log: the newest head and the tree's frontier, and the checks that it only ever grew."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sql

from metier.audit import reading
from metier.audit.merkle import Frontier, leaf_hash
from metier.audit.notes import PublicKey, SignedHead
from metier.audit.tables import ENTRIES
from metier.errors import LedgerError

__all__ = ["Tip", "agree", "follows", "load"]

_REMEDY = "\n    -> look at it with: metier audit verify; nothing is logged before this is cleared up"


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest head, the frontier of its tree, and the last head that was stored for good."""

    head: SignedHead
    frontier: Frontier
    stored: SignedHead


def load(connection: sql.Connection, key: PublicKey) -> Tip:
    """Read the end of the log from the database and check that it is signed and all there. Raises LedgerError."""
    head, data = reading.newest_head(connection)
    head.check(key)
    frontier = _frontier(head, data)
    last = connection.execute(sql.select(sql.func.max(ENTRIES.c.number))).scalar()
    size = 0 if last is None else last + 1
    if size != head.size:
        what = "the tail was cut" if size < head.size else "entries were added"
        raise LedgerError(f"the log has {size} entries and {head.size} were signed: {what}{_REMEDY}")
    stored = reading.last_stored_head(connection)
    if stored is None or stored.digest not in (head.previous, head.digest):
        raise LedgerError(f"the newest head, of {head.size} entries, does not follow the stored heads{_REMEDY}")
    return Tip(head, frontier, stored)


def follows(connection: sql.Connection, old: Tip, new: Tip) -> None:
    """Check that `new`, which another process wrote, continues what this one saw. Raises LedgerError."""
    if new.head.size < old.head.size or _grown(connection, old.frontier, new.head.size) != new.head.root:
        raise LedgerError(f"the log was cut or rewritten while it was open: {old.head.size} entries were there, now others{_REMEDY}")


def agree(connection: sql.Connection, tip: Tip, witness: SignedHead | None, key: PublicKey) -> None:
    """Check that the log continues the head that the heads file holds. Raises LedgerError."""
    if witness is None:
        raise LedgerError(f"the heads file holds no newest head that can be read{_REMEDY}")
    if witness.note == tip.head.note:
        return
    if witness.origin != tip.head.origin:
        raise LedgerError(f"the heads file belongs to another log, {witness.origin}: the database was exchanged, or the setting audit.heads is wrong{_REMEDY}")
    witness.check(key)
    if witness.size > tip.head.size:
        raise LedgerError(
            f"the database holds {tip.head.size} entries, and {witness.size} were signed and recorded in the heads file: "
            f"the tail was cut, or an older copy was restored{_REMEDY}"
        )
    found = reading.stored_heads(connection, up_to=witness.size)
    if not found:
        raise LedgerError(f"no stored head is there from before entry {witness.size}{_REMEDY}")
    head, data = found[-1]
    head.check(key)
    frontier = _frontier(head, data)
    if _grown(connection, frontier, witness.size) != witness.root or _grown(connection, frontier, tip.head.size) != tip.head.root:
        raise LedgerError(f"the log was rewritten: its first {witness.size} entries are not those that the heads file records{_REMEDY}")


def _frontier(head: SignedHead, data: bytes) -> Frontier:
    """The stored frontier of a signed head. It is trusted because it folds to the root that was signed."""
    try:
        frontier = Frontier.from_bytes(head.size, data)
    except ValueError as error:
        raise LedgerError(f"the stored frontier of the head of {head.size} entries was changed: {error}{_REMEDY}") from None
    if frontier.root() != head.root:
        raise LedgerError(f"the stored frontier of the head of {head.size} entries was changed{_REMEDY}")
    return frontier


def _grown(connection: sql.Connection, frontier: Frontier, size: int) -> bytes:
    """The root at `size` of the entries that follow the frontier; their hashes are computed anew."""
    frontier = frontier.copy()
    for number, envelope, _ in reading.envelopes(connection, frontier.size, size):
        if number != frontier.size:
            raise LedgerError(f"entry {frontier.size} is missing{_REMEDY}")
        frontier.append(leaf_hash(envelope))
    return frontier.root()
