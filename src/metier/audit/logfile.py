"""The log as one file that verifies on its own: what it says of itself, every entry, every signed head, and no body.

JSON lines, each in one possible form, so that every byte of the file is either hashed, signed or compared::

    {"format":"metier-log/1","heads":3,"log":{...},"size":2000}
    {"entry":{...},"leaf":"64 hexadecimal digits"}         2000 of these, in order
    {"head":"metier/ledger/..."}                           3 of these: stored heads, oldest first
    {"newest":"metier/ledger/..."}                         the head over all of it
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from metier.audit.check import LogCheck, check_chain
from metier.audit.entries import ENVELOPE_BYTES, LogFacts, ascii_json
from metier.audit.notes import PublicKey, SignedHead
from metier.audit.verdict import Verdict
from metier.audit.witness import head_line, read_head_line
from metier.errors import LedgerError

__all__ = ["FORMAT", "check_log", "write_log"]

FORMAT = "metier-log/1"
_LINE = ENVELOPE_BYTES + 256
_BEFORE, _BETWEEN, _AFTER = b'{"entry":', b',"leaf":"', b'"}\n'
_LEAF = len(_BETWEEN) + 64 + len(_AFTER)


def write_log(path: Path, facts: LogFacts, entries: Iterable[tuple[int, bytes, bytes]], heads: Sequence[SignedHead], newest: SignedHead) -> None:
    """Write the log aside and rename it into place. Line by line: a log may be larger than the memory. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_header(facts, newest.size, len(heads)))
            for _, envelope, leaf in entries:
                stream.write(b"".join((_BEFORE, envelope, _BETWEEN, leaf.hex().encode(), _AFTER)))
            stream.writelines(head_line(head) + b"\n" for head in heads)
            stream.write(head_line(newest, "newest") + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.chmod(0o644)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_log(stream: BinaryIO, key: PublicKey | None = None, extra: Sequence[SignedHead] = ()) -> Verdict:
    """Check an exported log and return the verdict; `key` pins who may have signed, `extra` are earlier heads that it has to continue.

    The file is read twice, heads first, in constant memory. Raises LedgerError, naming the first thing that fails.
    """
    facts, size, count = _read_header(stream)
    public = PublicKey.from_pem(facts.public_key.encode())
    if key is not None and key != public:
        raise LedgerError(f"the log was signed with the key {public.key_id}, not with {key.key_id}")
    start = stream.tell()
    for index in range(size):
        if not _line(stream).startswith(_BEFORE):
            raise LedgerError(f"where entry {index} belongs is none: the log was cut, or entries were removed")
    heads = [read_head_line(_content(stream, "a signed head")) for _ in range(count)]
    newest = read_head_line(_content(stream, "the newest head"), "newest")
    if stream.read(1):
        raise LedgerError("something follows the newest head: the file was added to")
    if newest.origin != facts.origin:
        raise LedgerError("what the log says of itself is not what its heads sign")
    check_chain(heads, newest, public)
    for head in extra:
        if head.origin != newest.origin:
            raise LedgerError(f"the head of {head.size} entries that was given belongs to another log, {head.origin}")
        head.check(public)
    check = LogCheck([*heads, newest, *extra])
    stream.seek(start)
    for index in range(size):
        check.add(*_entry(_line(stream), index))
    check.finish(newest.size)
    return Verdict(
        "log",
        intact=True,
        origin=newest.origin,
        size=size,
        root=newest.root.hex(),
        key_id=public.key_id,
        pinned=key is not None,
        facts={"heads": count + 1, "earlier_than_the_entry_before": check.backwards},
    )


def _header(facts: LogFacts, size: int, heads: int) -> bytes:
    value: dict[str, Any] = {"format": FORMAT, "heads": heads, "log": json.loads(facts.encoded), "size": size}
    return ascii_json(value) + b"\n"


def _read_header(stream: BinaryIO) -> tuple[LogFacts, int, int]:
    line = _line(stream)
    try:
        value = json.loads(line)
        facts, size, heads = LogFacts.parse(ascii_json(value["log"])), value["size"], value["heads"]
        same = type(size) is int and type(heads) is int and _header(facts, size, heads) == line
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LedgerError(f"the first line is not that of an exported log ({FORMAT})") from None
    if not same or size < 0 or heads < 0:
        raise LedgerError("the first line of the log was changed")
    return facts, size, heads


def _entry(line: bytes, index: int) -> tuple[bytes, bytes]:
    """Envelope and hash of an entry's line."""
    if not (line.startswith(_BEFORE) and line.endswith(_AFTER) and line[-_LEAF:].startswith(_BETWEEN)):
        raise LedgerError(f"the line of entry {index} is not that of an entry")
    text = line[-_LEAF + len(_BETWEEN) : -len(_AFTER)]
    try:
        leaf = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        leaf = b""
    if leaf.hex().encode() != text:
        raise LedgerError(f"the stored hash of entry {index} was changed")
    return line[len(_BEFORE) : -_LEAF], leaf


def _line(stream: BinaryIO) -> bytes:
    return stream.readline(_LINE)


def _content(stream: BinaryIO, what: str) -> bytes:
    line = _line(stream)
    if not line.endswith(b"\n"):
        raise LedgerError(f"{what} is missing: the log was cut")
    return line[:-1]
