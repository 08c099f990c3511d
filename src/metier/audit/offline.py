"""A project's log without its secrets: verifying, exporting and proving need the public key at most, and write nothing to the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql

from metier.audit import reading, tables
from metier.audit.keys import PUBLIC_KEY
from metier.audit.merkle import inclusion_path
from metier.audit.notes import PublicKey, SignedHead
from metier.audit.places import Places
from metier.audit.proofs import encode_proof
from metier.audit.verdict import Verdict
from metier.audit.witness import HeadsFile
from metier.errors import LedgerError

__all__ = ["export_log", "newest_head", "prove", "verify_log"]


def verify_log(places: Places, key: PublicKey | None = None, heads: Sequence[SignedHead] = ()) -> Verdict:
    """Check a project's log, database and heads file. Without `key` the public key in the keys folder says who may have signed, if it is there."""
    if key is None and (own := places.keys / "ledger" / PUBLIC_KEY).is_file():
        try:
            key = PublicKey.from_pem(own.read_bytes())
        except LedgerError as error:
            return Verdict("log", intact=False, fault=f"{own}: {error}")
    engine = _engine(places)
    try:
        return reading.verify_database(engine, HeadsFile(places.heads), key, tuple(heads))
    finally:
        engine.dispose()


def export_log(places: Places, path: Path) -> SignedHead:
    """Write the log without bodies to a file and return the head that it ends with. Raises LedgerError."""
    with _open(places) as connection:
        reading.export(connection, path)
        return reading.newest_head(connection)[0]


def newest_head(places: Places) -> SignedHead:
    """Return the newest signed head of a project's log, its signature checked with the log's own key. Raises LedgerError."""
    with _open(places) as connection:
        head = reading.newest_head(connection)[0]
        head.check(_public(connection))
    return head


def prove(places: Places, index: int) -> bytes:
    """Return a file that proves one entry and verifies on its own. Raises LedgerError if there is no such entry."""
    with _open(places) as connection:
        head = reading.newest_head(connection)[0]
        entry = next(reading.read_entries(connection, index, index + 1), None)
        if entry is None or index >= head.size:
            raise LedgerError(f"there is no entry {index} in the log: it has {head.size}, counted from 0")
        subtrees = reading.Subtrees()
        return encode_proof(
            entry, head, _public(connection), lambda index, size: inclusion_path(index, size, lambda level, number: subtrees.node(connection, level, number))
        )


def _public(connection: sql.Connection) -> PublicKey:
    facts = reading.read_facts(connection)
    if facts is None:
        raise LedgerError("the database holds no log")
    return PublicKey.from_pem(facts.public_key.encode())


def _engine(places: Places) -> sql.Engine:
    if not places.exist:
        raise LedgerError(f"there is no log yet at {places.database}\n    -> one is begun by the first command that has something to account for: metier run")
    if not places.on_a_server and not Path(places.database).exists():
        raise LedgerError(f"the database {places.database} is gone, and {places.heads} records a log\n    -> restore it from its backup")
    return tables.connect(places.database)


@contextmanager
def _open(places: Places) -> Iterator[sql.Connection]:
    engine = _engine(places)
    try:
        with tables.guarded(engine, "read"), tables.reading(engine) as connection:
            yield connection
    finally:
        engine.dispose()
