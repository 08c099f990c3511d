"""The ledger: events go in, are durable when `append` returns, and cannot be changed without being found out.

Writers take turns: the heads file's lock between the processes of a machine, the database's own between machines. Threads
that call at the same time share one transaction (group commit). An entry, its body, its subject's key and the signed head over
all of it are one transaction; then the head is written to the heads file; only then is the caller told. Whatever fails before
that is a LedgerError, and what was to be logged must not happen.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from metier.audit import reading, start, tables, tip
from metier.audit.bodies import NOBODY, SALT_BYTES, Body, DataKey, Sealer
from metier.audit.entries import Entry, LogFacts, commitment, encode_body, envelope, sealed_digest, validate
from metier.audit.keys import Keys
from metier.audit.merkle import Frontier, Node, consistency_path, inclusion_path, leaf_hash
from metier.audit.notes import PublicKey, SignedHead, sign_head
from metier.audit.settings import AuditSettings
from metier.audit.statements import Statements
from metier.audit.tables import BODIES, KEYS, ONLY
from metier.audit.tip import Tip
from metier.audit.turns import Turns
from metier.audit.verdict import Verdict
from metier.audit.witness import HeadsFile
from metier.errors import LedgerError
from metier.events import Event, now

__all__ = ["Ledger", "LedgerState", "Receipt", "open_ledger"]

_TOGETHER = 2048
"""Events that share one transaction at most; one call's events are never parted."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a caller gets for an event that is durable: its number, and the hash of its entry in hexadecimal."""

    index: int
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The log after a check of all of it. `root` is hexadecimal; `fault` is the first thing that fails."""

    size: int
    root: str
    intact: bool
    fault: str | None


@dataclass(frozen=True, slots=True, repr=False)
class _Prepared:
    """An event that can be kept; body, salt and commitment are there or not, all three."""

    event: Event
    subject: str | None
    salt: bytes = b""
    body: bytes | None = None
    committed: str | None = None
    erases: bool = False


@dataclass(slots=True)
class _Batch:
    """The rows of one transaction."""

    frontier: Frontier
    entries: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    def add(self, item: _Prepared, sealer: Sealer, keys: dict[str, DataKey]) -> None:
        index, sealed = self.frontier.size, None
        if item.body is not None:
            key = keys[item.subject or NOBODY]
            data = sealer.seal(index, key, item.salt, item.body)
            self.bodies.append({"number": index, "key": key.name, "sealed": data})
            sealed = sealed_digest(key.name, data)
        encoded = envelope(item.event, index, subject=item.subject, committed=item.committed, sealed=sealed)
        leaf = leaf_hash(encoded)
        self.frontier.append(leaf)
        self.entries.append({"number": index, "envelope": encoded, "leaf": leaf})
        self.receipts.append(Receipt(index, leaf.hex()))


def open_ledger(where: str | Path, keys: Keys, settings: AuditSettings | None = None, *, restore_heads: bool = False) -> Ledger:
    """Open the log in a file of SQLite or at an SQLAlchemy URL, beginning it if there is none; `settings` says how often heads are stored and where again.

    Checks that keys, database and heads file belong together and that nothing was cut since; the whole log is checked by
    `Ledger.state`. With `restore_heads` a lost heads file is written anew from the database, after a check of every row.
    Raises LedgerError.
    """
    settings = settings or AuditSettings()
    engine = tables.connect(where)
    heads = HeadsFile(Path(settings.heads) if settings.heads else start.default_heads(engine, keys))
    try:
        with tables.guarded(engine, "open"):
            if engine.dialect.name == "sqlite":
                Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
            facts = start.begin(engine, keys, heads)
            start.same_keys(facts, keys)
            ledger = Ledger(engine, keys, facts, heads, settings.head_every)
            if restore_heads and not heads.exists:
                ledger.write_heads()
            with heads.locked(), tables.writing(engine) as connection:
                missing = start.resume(connection, facts.origin, keys, heads)
                heads.write(reading.newest_head(connection)[0], missing)
    except BaseException:
        engine.dispose()
        raise
    return ledger


class Ledger:
    """An open log. Threads may share it; processes each open their own. `open_ledger` makes one."""

    def __init__(self, engine: sql.Engine, keys: Keys, facts: LogFacts, heads: HeadsFile, head_every: int) -> None:
        self._engine = engine
        self._keys = keys
        self._facts = facts
        self._heads = heads
        self._head_every = head_every
        self._statements = Statements(engine.dialect)
        self._sealer = Sealer(keys, facts.origin, self._statements)
        self._tip: Tip | None = None
        self._turns: Turns[_Prepared, Receipt] = Turns(self._commit, together=_TOGETHER)
        self._subtrees = reading.Subtrees()
        self._proving = threading.Lock()

    def __enter__(self) -> Ledger:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the database. What was acknowledged is durable in any case."""
        self._engine.dispose()

    @property
    def origin(self) -> str:
        """The log's name, which every head signs."""
        return self._facts.origin

    @property
    def public(self) -> PublicKey:
        """The key that its heads are signed with."""
        return self._keys.public

    def append(self, events: Sequence[Event]) -> list[Receipt]:
        """Keep events in this order, all or none; they are durable when this returns. Raises LedgerError if they could not be kept.

        After an error the events are usually not in the log; if the connection broke in the very moment of the commit they may be.
        """
        prepared = [self._prepare(event) for event in events]
        return self._turns.take(prepared) if prepared else []

    def record(self, event: Event) -> int:
        """Keep one event and return its number: a `metier.events.Record`."""
        return self.append([event])[0].index

    def erase(self, subject: str, *, actor: str, reason: str = "") -> Receipt:
        """Destroy the keys of everything that was said of a subject, and log that: the log still verifies, the bodies are noise.

        Copies of the database that were made before, and the keys folder with them, still hold the bodies.
        """
        prepared = replace(self._prepare(Event("erasure", actor, now(), {"reason": reason}, subject=subject)), erases=True)
        (receipt,) = self._turns.take([prepared], alone=True)
        with tables.guarded(self._engine, "erase from"):
            tables.scrub(self._engine)
        return receipt

    def head(self) -> SignedHead:
        """Return the newest signed head."""
        with self._reading() as connection:
            head = reading.newest_head(connection)[0]
        head.check(self.public)
        return head

    def state(self) -> LedgerState:
        """Check the whole log, database and heads file, and return what it is."""
        verdict = self.verify()
        return LedgerState(verdict.size, verdict.root or "", verdict.intact, verdict.fault)

    def verify(self) -> Verdict:
        """Check every row and every head, as `metier audit verify` does."""
        return reading.verify_database(self._engine, self._heads, self.public)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the audit path of an entry in the log of `size` entries. Raises ValueError for an index outside."""
        with self._reading() as connection:
            return inclusion_path(index, size, self._node(connection))

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the log of `old` entries is the beginning of that of `new`. Raises ValueError unless 0 <= old <= new."""
        with self._reading() as connection:
            return consistency_path(old, new, self._node(connection))

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Yield the entries start..stop in order."""
        with self._reading() as connection:
            yield from reading.read_entries(connection, start, stop)

    def find(self, *, kind: str | None = None, actor: str | None = None, subject: str | None = None, **facts: Any) -> Iterator[Entry]:
        """Yield the entries of this kind, actor and subject (in the clear; it is turned into what stands for it) with these facts."""
        wanted = {"kind": kind, "actor": actor, "subject": None if subject is None else self._keys.token(subject)}
        with self._reading() as connection:
            yield from reading.find(connection, wanted, facts)

    def body(self, index: int) -> Body | None:
        """Return the decrypted body of an entry, None if it has none. Raises LedgerError if it was erased or changed."""
        with self._reading() as connection:
            entry = next(reading.read_entries(connection, index, index + 1), None)
            if entry is None:
                raise LedgerError(f"there is no entry {index} in the log")
            if entry.commitment is None:
                return None
            row = connection.execute(sql.select(BODIES.c.key, BODIES.c.sealed).where(BODIES.c.number == index)).one_or_none()
            if row is None:
                raise LedgerError(f"the encrypted body of entry {index} is missing")
            key = self._sealer.read_key(connection, row[0])
        if key is None:
            raise LedgerError(f"the body of entry {index} was erased: its key was destroyed")
        return self._sealer.open(index, key, row[1], entry.commitment)

    def export(self, path: Path) -> int:
        """Write the log without bodies to a file that verifies on its own, and return its number of entries; see `metier.audit.logfile`."""
        with self._reading() as connection:
            return reading.export(connection, path)

    def write_heads(self) -> None:
        """Write the heads file anew from the database, after a check of every row. Raises LedgerError if the database does not verify."""
        with tables.guarded(self._engine, "check"), tables.reading(self._engine) as connection:
            reading.check_rows(connection, None, self.public)
            self._heads.create([head for head, _ in reading.stored_heads(connection)], reading.newest_head(connection)[0])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sql.Connection]:
        with tables.guarded(self._engine, "read"), tables.reading(self._engine) as connection:
            yield connection

    def _node(self, connection: sql.Connection) -> Node:
        def node(level: int, number: int) -> bytes:
            with self._proving:
                return self._subtrees.node(connection, level, number)

        return node

    def _prepare(self, event: Event) -> _Prepared:
        validate(event)
        subject = None if event.subject is None else self._keys.token(event.subject)
        if event.body is None:
            return _Prepared(event, subject)
        body, salt = encode_body(event.body), os.urandom(SALT_BYTES)
        return _Prepared(event, subject, salt, body, commitment(salt, body))

    def _commit(self, items: Sequence[_Prepared]) -> list[Receipt]:
        """Write entries, bodies, keys and heads in one transaction, then the heads file. One thread at a time, by its turn."""
        known, self._tip = self._tip, None
        with tables.guarded(self._engine, "write to"), self._heads.locked():
            with tables.writing(self._engine) as connection:
                end = self._end(connection, known)
                if erased := [item.subject for item in items if item.erases]:
                    connection.execute(sql.delete(KEYS).where(KEYS.c.subject.in_(erased)))
                    self._sealer.forget()
                batch = _Batch(end.frontier.copy())
                keys = self._sealer.data_keys(connection, {item.subject or NOBODY for item in items if item.body is not None})
                for item in items:
                    batch.add(item, self._sealer, keys)
                grown = self._write(connection, end, batch)
                mends = known is None or known.head.note != end.head.note or grown.stored is not end.stored
                stored = [head for head, _ in reading.stored_heads(connection, above=self._heads.last_stored())] if mends else []
            self._heads.write(grown.head, stored)
        self._tip = grown
        return batch.receipts

    def _end(self, connection: sql.Connection, known: Tip | None) -> Tip:
        """The end of the log as the database has it, held against what this process and the heads file know."""
        note = self._statements.newest_note(connection, {"id": ONLY}).scalar()
        witness = self._heads.newest()
        if known is not None and note == known.head.note.encode() and witness is not None and witness.note == known.head.note:
            return known
        end = tip.load(connection, self.public)
        if known is not None:
            tip.follows(connection, known, end)
        tip.agree(connection, end, witness, self.public)
        return end

    def _write(self, connection: sql.Connection, end: Tip, batch: _Batch) -> Tip:
        """Write the rows of a batch and its signed head, and return the new end."""
        size, data = batch.frontier.size, batch.frontier.to_bytes()
        head = sign_head(self._keys.sign, self.public, origin=self.origin, size=size, root=batch.frontier.root(), previous=end.stored.digest, time=now())
        self._statements.insert_entries(connection, *batch.entries)
        if batch.bodies:
            self._statements.insert_bodies(connection, *batch.bodies)
        self._statements.set_newest(connection, start.rows_of(head, data))
        if size // self._head_every == end.head.size // self._head_every:
            return Tip(head, batch.frontier, end.stored)
        self._statements.insert_head(connection, {"size": size, **start.rows_of(head, data)})
        return Tip(head, batch.frontier, head)
