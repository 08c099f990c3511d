"""How a log begins, and what is checked before one goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from metier.audit import reading, tip
from metier.audit.entries import LogFacts
from metier.audit.keys import Keys
from metier.audit.merkle import EMPTY_ROOT
from metier.audit.notes import NO_HEAD, SignedHead, sign_head
from metier.audit.tables import FACTS, HEADS, NEWEST, ONLY, TABLES, writing
from metier.audit.witness import HeadsFile
from metier.errors import LedgerError
from metier.events import now

__all__ = ["begin", "default_heads", "resume", "rows_of", "same_keys"]


def default_heads(engine: sql.Engine, keys: Keys) -> Path:
    """Return where the heads file lies if nothing else is said: beside the database, or beside the keys if that is a server."""
    if engine.dialect.name == "sqlite":
        return Path(str(engine.url.database)).with_suffix(".heads.jsonl")
    return keys.folder.parent.parent / "ledger.heads.jsonl"


def begin(engine: sql.Engine, keys: Keys, heads: HeadsFile) -> LogFacts:
    """Begin the log if the database holds none, and return what it says of itself. Raises LedgerError if there was one, and it is gone."""
    with writing(engine) as connection:
        if (found := reading.read_facts(connection)) is not None:
            return found
        _refuse_a_second_beginning(heads)
        TABLES.create_all(connection)
        facts = LogFacts(keys.public_pem.decode(), keys.body_key_id, now(), os.urandom(16).hex())
        head = sign_head(keys.sign, keys.public, origin=facts.origin, size=0, root=EMPTY_ROOT, previous=NO_HEAD, time=now())
        connection.execute(sql.insert(FACTS), {"id": ONLY, "facts": facts.encoded})
        connection.execute(sql.insert(HEADS), {"size": 0, **rows_of(head, b"")})
        connection.execute(sql.insert(NEWEST), {"id": ONLY, **rows_of(head, b"")})
        # Before the commit: a heads file without a log is begun again, a log without a heads file would be refused.
        heads.create([head], head)
        return facts


def rows_of(head: SignedHead, frontier: bytes) -> dict[str, Any]:
    """Return a head's columns."""
    return {"note": head.note.encode(), "frontier": frontier}


def resume(connection: sql.Connection, origin: str, keys: Keys, heads: HeadsFile) -> Sequence[SignedHead]:
    """Check, under the heads file's lock, that database and heads file belong together and nothing was cut. Raises LedgerError.

    Returns the stored heads that the heads file lacks.
    """
    end = tip.load(connection, keys.public)
    if end.head.origin != origin:
        raise LedgerError("what the log says of itself is not what its heads sign\n    -> look at it with: metier audit verify")
    tip.agree(connection, end, heads.newest(), keys.public)
    return [head for head, _ in reading.stored_heads(connection, above=heads.last_stored())]


def same_keys(facts: LogFacts, keys: Keys) -> None:
    """Raise LedgerError unless the keys are there and those of the log."""
    if not keys.exist:
        remedy = "restore the folder from its backup; no new keys are made for a log that has some"
        raise LedgerError(f"the log is there and its keys are gone: {keys.folder} does not exist\n    -> {remedy}")
    remedy = f"restore the log's own keys to {keys.folder}, or give their folder by audit.keys"
    if facts.public_key.encode() != keys.public_pem:
        raise LedgerError(f"the log was signed with another key than the one in {keys.folder}\n    -> {remedy}")
    if facts.body_key != keys.body_key_id:
        raise LedgerError(f"the body key in {keys.folder} is not the log's\n    -> {remedy}")


def _refuse_a_second_beginning(heads: HeadsFile) -> None:
    if not heads.exists:
        return
    newest = heads.read(mend=True).newest
    if newest is None or newest.size:
        count = 0 if newest is None else newest.size
        remedy = "restore the database from its backup; only if the log may be given up, move the heads file and the keys away"
        raise LedgerError(f"the database holds no log, but {heads.path} records one of {count} entries: the database was deleted or exchanged\n    -> {remedy}")
