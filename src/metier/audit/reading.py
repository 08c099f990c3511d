"""Reading the stored log: entries, hashes of subtrees for proofs, and the check of every row. Needs no secret."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from metier.audit.bodies import key_name
from metier.audit.check import LogCheck, check_chain
from metier.audit.entries import Entry, LogFacts, ascii_json, read_envelope, sealed_digest
from metier.audit.logfile import write_log
from metier.audit.merkle import node_hash
from metier.audit.notes import PublicKey, SignedHead
from metier.audit.tables import BODIES, ENTRIES, FACTS, HEADS, KEYS, NEWEST, ONLY, guarded
from metier.audit.tables import reading as begin_reading
from metier.audit.verdict import Verdict
from metier.audit.witness import HeadsFile, Witnessed
from metier.errors import LedgerError

__all__ = [
    "Subtrees",
    "check_rows",
    "envelopes",
    "export",
    "find",
    "last_stored_head",
    "newest_head",
    "parse_note",
    "read_entries",
    "read_facts",
    "stored_heads",
    "to_entry",
    "verify_database",
]

_ROWS = 4096
"""Rows that are fetched at a time."""
_LEVEL = 10
"""Subtrees of 1,024 leaves are read at once and remembered."""


def read_facts(connection: sql.Connection) -> LogFacts | None:
    """Return what the log says of itself, None if no log is there yet."""
    if not sql.inspect(connection).has_table(FACTS.name):
        return None
    rows = connection.execute(sql.select(FACTS.c.id, FACTS.c.facts).limit(2)).all()
    if [row[0] for row in rows] not in ([], [ONLY]):
        raise LedgerError("the row that says what the log is was changed, or one was added")
    return LogFacts.parse(_bytes(rows[0][1])) if rows else None


def newest_head(connection: sql.Connection) -> tuple[SignedHead, bytes]:
    """Return the newest head and its frontier. Raises LedgerError if there is not exactly one."""
    rows = connection.execute(sql.select(NEWEST.c.id, NEWEST.c.note, NEWEST.c.frontier).limit(2)).all()
    if [row[0] for row in rows] != [ONLY]:
        raise LedgerError("the row of the newest signed head was changed or removed, or one was added")
    return parse_note(rows[0][1]), _bytes(rows[0][2])


def stored_heads(connection: sql.Connection, above: int = -1, up_to: int | None = None) -> list[tuple[SignedHead, bytes]]:
    """Return the heads that are kept for good with their frontiers, by size, those of more than `above` entries."""
    query = sql.select(HEADS.c.size, HEADS.c.note, HEADS.c.frontier).where(HEADS.c.size > above).order_by(HEADS.c.size)
    if up_to is not None:
        query = query.where(HEADS.c.size <= up_to)
    found = []
    for size, note, frontier in connection.execute(query):
        head = parse_note(note)
        if head.size != size:
            raise LedgerError(f"the row of the head of {size} entries holds that of {head.size}")
        found.append((head, _bytes(frontier)))
    return found


def last_stored_head(connection: sql.Connection) -> SignedHead | None:
    """Return the last head that is kept for good."""
    note = connection.execute(sql.select(HEADS.c.note).order_by(HEADS.c.size.desc()).limit(1)).scalar()
    return None if note is None else parse_note(note)


def parse_note(data: Any) -> SignedHead:
    """Return the head that a row holds. Raises LedgerError if it cannot be read."""
    try:
        return SignedHead.parse(_bytes(data).decode())
    except UnicodeDecodeError:
        raise LedgerError("a signed head in the database cannot be read") from None


def envelopes(connection: sql.Connection, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, envelope and stored hash of entries, in order, in constant memory."""
    query = sql.select(ENTRIES.c.number, ENTRIES.c.envelope, ENTRIES.c.leaf).where(ENTRIES.c.number >= start).order_by(ENTRIES.c.number)
    if stop is not None:
        query = query.where(ENTRIES.c.number < stop)
    for number, envelope, leaf in _stream(connection, query):
        yield number, _bytes(envelope), _bytes(leaf)


def to_entry(number: int, envelope: bytes, leaf: bytes) -> Entry:
    """Return an entry as it is read back."""
    fields = read_envelope(envelope, number)
    del fields["sealed"]
    return Entry(**fields, envelope=envelope, leaf_hash=leaf.hex())


def read_entries(connection: sql.Connection, start: int, stop: int | None = None) -> Iterator[Entry]:
    """Yield the entries start..stop, in order."""
    for row in envelopes(connection, start, stop):
        yield to_entry(*row)


def find(connection: sql.Connection, wanted: Mapping[str, str | None], facts: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the entries whose kind, actor or subject (`wanted`, where not None) and facts are these, in order.

    The database looks for the canonical text of each of them in the envelope; what it finds is then read and compared.
    """
    query = sql.select(ENTRIES.c.number, ENTRIES.c.envelope, ENTRIES.c.leaf).order_by(ENTRIES.c.number)
    fields = {name: value for name, value in wanted.items() if value is not None}
    for name, value in [*fields.items(), *facts.items()]:
        needle = sql.literal(ascii_json(name) + b":" + ascii_json(value), sql.LargeBinary)
        held = sql.func.instr(ENTRIES.c.envelope, needle) if connection.dialect.name == "sqlite" else sql.func.position(needle.op("IN")(ENTRIES.c.envelope))
        query = query.where(held > 0)
    for number, envelope, leaf in _stream(connection, query):
        entry = to_entry(number, _bytes(envelope), _bytes(leaf))
        same = all(getattr(entry, name) == value for name, value in fields.items())
        if same and all(name in entry.facts and ascii_json(entry.facts[name]) == ascii_json(value) for name, value in facts.items()):
            yield entry


class Subtrees:
    """Hashes of perfect subtrees, from the stored leaf hashes: the `Node` that proofs are made of."""

    def __init__(self, *, remembered: int = 1 << 16) -> None:
        self._known: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._remembered = remembered
        self._block: tuple[int, list[list[bytes]]] = (-1, [])

    def node(self, connection: sql.Connection, level: int, number: int) -> bytes:
        """Return the hash over the 2**level leaves from number * 2**level on."""
        if level >= _LEVEL:
            if (found := self._known.get((level, number))) is None:
                if level == _LEVEL:
                    found = self._levels(connection, number)[_LEVEL][0]
                else:
                    found = node_hash(self.node(connection, level - 1, 2 * number), self.node(connection, level - 1, 2 * number + 1))
                self._known[level, number] = found
                if len(self._known) > self._remembered:
                    self._known.popitem(last=False)
            return found
        block = number >> (_LEVEL - level)
        place = number - (block << (_LEVEL - level))
        return self._levels(connection, block, leaves=(place + 1) << level)[level][place]

    def _levels(self, connection: sql.Connection, block: int, *, leaves: int = 1 << _LEVEL) -> list[list[bytes]]:
        """The hashes of one block, level by level as far as its pairs are complete; it has at least so many leaves."""
        if self._block[0] != block or len(self._block[1][0]) < leaves:
            start = block << _LEVEL
            query = sql.select(ENTRIES.c.leaf).where(ENTRIES.c.number >= start, ENTRIES.c.number < start + (1 << _LEVEL)).order_by(ENTRIES.c.number)
            levels = [[_bytes(leaf) for leaf in connection.execute(query).scalars()]]
            if len(levels[0]) < leaves:
                raise LedgerError(f"an entry between {start} and {start + leaves - 1} is missing")
            for _ in range(_LEVEL):
                below = levels[-1]
                levels.append([node_hash(below[place], below[place + 1]) for place in range(0, len(below) - 1, 2)])
            self._block = (block, levels)
        return self._block[1]


def export(connection: sql.Connection, path: Path) -> int:
    """Write the log without bodies to a file and return its number of entries."""
    facts = read_facts(connection)
    if facts is None:
        raise LedgerError("the database holds no log")
    newest = newest_head(connection)[0]
    write_log(path, facts, envelopes(connection, 0, newest.size), [head for head, _ in stored_heads(connection)], newest)
    return newest.size


def verify_database(engine: sql.Engine, heads: HeadsFile, key: PublicKey | None, extra: tuple[SignedHead, ...] = ()) -> Verdict:
    """Check database and heads file with the public key only and return the verdict; what is wrong is its fault, not an exception."""
    try:
        # The heads file first: the database may grow in between, the file must not be ahead of it.
        witnessed = heads.read() if heads.exists else None
        with guarded(engine, "read"), begin_reading(engine) as connection:
            verdict = check_rows(connection, witnessed, key, extra)
    except (LedgerError, OSError) as error:
        return Verdict("log", intact=False, fault=str(error), pinned=key is not None)
    except (TypeError, ValueError) as error:
        return Verdict("log", intact=False, fault=f"a row of the log holds what cannot be read: {error}", pinned=key is not None)
    if witnessed is None:
        return replace(verdict, intact=False, fault=f"the heads file {heads.path} is gone: whether the tail was cut cannot be told")
    return verdict


def check_rows(connection: sql.Connection, witnessed: Witnessed | None, key: PublicKey | None = None, extra: tuple[SignedHead, ...] = ()) -> Verdict:
    """Check every row of the database and every head of the heads file, and return the verdict; `key` pins who may have signed.

    Raises LedgerError, naming the first thing that fails.
    """
    facts = read_facts(connection)
    if facts is None:
        raise LedgerError("the database holds no log")
    public = PublicKey.from_pem(facts.public_key.encode())
    if key is not None and key != public:
        raise LedgerError(f"the log was signed with the key {public.key_id}, not with {key.key_id}")
    newest, frontier = newest_head(connection)
    stored = stored_heads(connection)
    if newest.origin != facts.origin:
        raise LedgerError("what the log says of itself is not what its heads sign")
    check_chain([head for head, _ in stored], newest, public)
    witnesses = () if witnessed is None else _check_witnessed(witnessed, newest, [head for head, _ in stored], public)
    for head in extra:
        if head.origin != newest.origin:
            raise LedgerError(f"the head of {head.size} entries that was given belongs to another log, {head.origin}")
        head.check(public)
    check = LogCheck([*(head for head, _ in stored), newest, *witnesses, *extra])
    grown = {head.size: data for head, data in [*stored, (newest, frontier)]}
    _check_frontier(check, grown)
    counts = _check_entries(connection, check, grown)
    check.finish(newest.size)
    return Verdict(
        "log",
        intact=True,
        origin=newest.origin,
        size=newest.size,
        root=newest.root.hex(),
        key_id=public.key_id,
        pinned=key is not None,
        facts={"heads": len(stored) + 1, **counts, "earlier_than_the_entry_before": check.backwards},
    )


def _check_witnessed(witnessed: Witnessed, newest: SignedHead, stored: list[SignedHead], key: PublicKey) -> tuple[SignedHead, ...]:
    """Check the second record and return its heads."""
    if None in witnessed.slots or (last := witnessed.newest) is None:
        raise LedgerError("one of the two newest heads in the heads file was changed or not fully written\n    -> the next entry that is logged mends it")
    heads = (*(slot for slot in witnessed.slots if slot is not None), *witnessed.stored)
    for head in heads:
        if head.origin != newest.origin:
            raise LedgerError(f"the heads file belongs to another log, {head.origin}: the database was exchanged or made anew")
        head.check(key)
    # A database that was cut is told by the entries that it lacks.
    if last.size <= newest.size and [head.note for head in witnessed.stored] != [head.note for head in stored if head.size <= last.size]:
        raise LedgerError("the stored heads of the heads file are not those of the database: one was removed, added or moved")
    return heads


def _check_entries(connection: sql.Connection, check: LogCheck, grown: Mapping[int, bytes]) -> dict[str, int]:
    """Check entries, bodies and data keys row by row."""
    keys = _check_keys(connection)
    used: set[str] = set()
    orphaned: dict[str, int] = {}
    bodies = 0
    query = sql.select(ENTRIES.c.number, ENTRIES.c.envelope, ENTRIES.c.leaf, BODIES.c.key, BODIES.c.sealed).outerjoin(
        BODIES, BODIES.c.number == ENTRIES.c.number
    )
    for number, envelope, leaf, key, sealed in _stream(connection, query.order_by(ENTRIES.c.number)):
        index = check.frontier.size
        if number != index:
            raise LedgerError(
                f"entry {index} is missing: the next one that is there is {number}" if number > index else f"entry {number} was added before the log"
            )
        fields = check.add(_bytes(envelope), _bytes(leaf))
        if check.frontier.size in grown:
            _check_frontier(check, grown)
        if (key is None) != (fields["sealed"] is None):
            raise LedgerError(f"the encrypted body of entry {index} " + ("is missing" if key is None else "was added"))
        if key is not None:
            bodies += 1
            used.add(key)
            if sealed_digest(key, _bytes(sealed)) != fields["sealed"]:
                raise LedgerError(f"the encrypted body of entry {index} was changed")
            if key not in keys:
                orphaned.setdefault(fields["subject"] or "", index)
            elif keys[key] != (fields["subject"] or ""):
                raise LedgerError(f"the body of entry {index} is encrypted with another subject's key")
        if fields["kind"] == "erasure" and fields["subject"] is not None:
            orphaned.pop(fields["subject"], None)
    if orphaned:
        raise LedgerError(f"the key of the body of entry {min(orphaned.values())} is gone, and no erasure was logged")
    if unused := keys.keys() - used:
        raise LedgerError(f"{len(unused)} data keys belong to no body: they were added, or bodies were removed")
    if connection.execute(sql.select(sql.func.count()).select_from(BODIES)).scalar_one() != bodies:
        raise LedgerError("there are encrypted bodies that belong to no entry")
    return {"bodies": bodies, "data_keys": len(keys)}


def _check_keys(connection: sql.Connection) -> dict[str, str]:
    """The data keys' subjects by identifier, after a check that each is named by its digest."""
    from_rows = {}
    for name, subject, wrapped in _stream(connection, sql.select(KEYS.c.id, KEYS.c.subject, KEYS.c.wrapped)):
        if key_name(subject, _bytes(wrapped)) != name:
            raise LedgerError(f"the data key {name[:16]} was changed")
        from_rows[name] = subject
    return from_rows


def _check_frontier(check: LogCheck, grown: Mapping[int, bytes]) -> None:
    size = check.frontier.size
    if grown.get(size, check.frontier.to_bytes()) != check.frontier.to_bytes():
        raise LedgerError(f"the stored frontier of the head of {size} entries was changed")


def _stream(connection: sql.Connection, query: Any) -> Iterator[Any]:
    with connection.execute(query, execution_options={"yield_per": _ROWS}) as rows:
        for part in rows.partitions():
            yield from part


def _bytes(value: Any) -> bytes:
    """A stored value, whose type somebody may have changed along with it."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes | memoryview):
        raise LedgerError(f"a row of the log holds a {type(value).__name__} where bytes belong")
    return bytes(value)
