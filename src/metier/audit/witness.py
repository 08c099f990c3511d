"""The heads file: signed heads in a second place, so that a database that was cut, rewritten or restored from an older copy is found out.

A text file of JSON lines. The first two are slots of fixed length, written in turn and in place, so that one of them always
holds the newest head, also after a power cut in the middle of a write; heads that are stored for good follow::

    {"newest":"metier/ledger/..."}            (padded with spaces to 1024 bytes)
    {"newest":"metier/ledger/..."}
    {"head":"metier/ledger/..."}
    ...

The file's lock also keeps the processes of one machine from writing to the log at the same time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metier.audit.entries import ascii_json
from metier.audit.notes import SignedHead
from metier.errors import LedgerError

__all__ = ["HeadsFile", "Witnessed", "head_line", "read_head_line", "read_heads"]

_SLOT = 1024
_SLOTS = 2
_PATIENCE = 30.0
"""Seconds to wait for another process."""
_sync = getattr(os, "fdatasync", os.fsync)


def head_line(head: SignedHead, name: str = "head") -> bytes:
    """Return a head as a line of JSON, without its end."""
    return ascii_json({name: head.note})


def read_head_line(line: bytes, name: str = "head") -> SignedHead:
    """Read a head's line. Raises LedgerError if it is not exactly of the form."""
    try:
        head = SignedHead.parse(json.loads(line)[name])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LedgerError("a signed head cannot be read") from None
    if head_line(head, name) != line:
        raise LedgerError(f"the line of the head of {head.size} entries was changed")
    return head


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What a heads file holds: the two slots, None where one cannot be read, and the heads that are stored for good."""

    slots: tuple[SignedHead | None, ...]
    stored: tuple[SignedHead, ...]

    @property
    def newest(self) -> SignedHead | None:
        """The newest head that the slots hold."""
        return max((slot for slot in self.slots if slot is not None), key=lambda head: head.size, default=None)


class HeadsFile:
    """One heads file. Signatures are for the caller to check."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._seen: tuple[bytes, tuple[SignedHead | None, ...]] = (b"", ())

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def read(self, *, mend: bool = False) -> Witnessed:
        """Read the whole file, not in the middle of a write. Raises LedgerError if a stored head cannot be read; OSError as `open` does.

        With `mend` a last line that a power cut left unfinished is passed over, as the next `write` does.
        """
        with self.path.open("rb") as stream:
            _lock(stream.fileno(), self.path, _PATIENCE, fcntl.LOCK_SH)
            data = stream.read()
        return _parse(data[: data.rfind(b"\n") + 1] if mend else data, self.path)

    def create(self, stored: Sequence[SignedHead], newest: SignedHead) -> None:
        """Write the file anew, aside and renamed into place. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with aside.open("wb") as stream:
            stream.write(_slot(newest) * _SLOTS + b"".join(head_line(head) + b"\n" for head in stored))
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self.path)
        # By hand, and not by `metier.store`: the verifier reads heads files and has nothing but this package.
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def locked(self, *, patience: float = _PATIENCE) -> Iterator[None]:
        """Hold the file for this process; one thread at a time. Raises LedgerError if another one holds it for `patience` seconds."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            raise LedgerError(
                f"the second record of the log's heads is gone: {self.path}\n"
                "    -> restore it from its backup; or look into the log with: metier audit verify, and write it anew with: metier audit head --restore"
            ) from None
        except OSError as error:
            raise LedgerError(f"cannot open {self.path}: {error.strerror}") from error
        try:
            _lock(self._descriptor, self.path, patience)
            yield
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def newest(self) -> SignedHead | None:
        """Return the newest head, inside `locked`."""
        return Witnessed(self._slots(), ()).newest

    def last_stored(self) -> int:
        """Return the size of the last stored head, -1 if there is none, inside `locked`. Raises LedgerError if it cannot be read."""
        end = self._complete_end()
        if end <= _SLOTS * _SLOT:
            return -1
        lines = os.pread(self._descriptor, _SLOT, max(end - _SLOT, 0)).split(b"\n")
        return read_head_line(lines[-2]).size

    def write(self, newest: SignedHead, stored: Sequence[SignedHead] = ()) -> None:
        """Add stored heads, then replace the older of the two slots; durable when it returns. Inside `locked`. Raises OSError."""
        slots = self._slots()
        if stored:
            end = self._complete_end()
            os.ftruncate(self._descriptor, end)
            _write_all(self._descriptor, b"".join(head_line(head) + b"\n" for head in stored), end)
            os.fsync(self._descriptor)
        older = min(range(_SLOTS), key=lambda place: -1 if (slot := slots[place]) is None else slot.size)
        data, line = self._seen[0], _slot(newest)
        _write_all(self._descriptor, line, older * _SLOT)
        _sync(self._descriptor)
        written = data[: older * _SLOT] + line + data[(older + 1) * _SLOT :]
        self._seen = written, tuple(newest if place == older else slot for place, slot in enumerate(slots))

    def _slots(self) -> tuple[SignedHead | None, ...]:
        """Read the two slots; heads are parsed anew only where another process, or somebody, has written since."""
        data = os.pread(self._descriptor, _SLOTS * _SLOT, 0)
        if data != self._seen[0]:
            self._seen = data, _slots(data)
        return self._seen[1]

    def _complete_end(self) -> int:
        """Where the last complete line ends: a line that a power cut left unfinished is written over."""
        size = os.fstat(self._descriptor).st_size
        place = max(size - 2 * _SLOT, 0)
        tail = os.pread(self._descriptor, 2 * _SLOT, place)
        return place + tail.rfind(b"\n") + 1


def read_heads(data: bytes, path: Path) -> tuple[SignedHead, ...]:
    """Return every head of a heads file that somebody kept. Raises LedgerError if it is not a whole one."""
    found = _parse(data, path)
    return (*(slot for slot in found.slots if slot is not None), *found.stored)


def _parse(data: bytes, path: Path) -> Witnessed:
    if len(data) < _SLOTS * _SLOT or not data.endswith(b"\n"):
        raise LedgerError(f"{path} is not a whole heads file: it was cut")
    lines = data[_SLOTS * _SLOT :].split(b"\n")[:-1]
    try:
        return Witnessed(_slots(data), tuple(read_head_line(line) for line in lines))
    except LedgerError as error:
        raise LedgerError(f"{path}: {error}") from None


def _slots(data: bytes) -> tuple[SignedHead | None, ...]:
    found: list[SignedHead | None] = []
    for number in range(_SLOTS):
        slot = data[number * _SLOT : (number + 1) * _SLOT]
        try:
            head = read_head_line(slot.rstrip(b" \n"), "newest")
            found.append(head if _slot(head) == slot else None)
        except LedgerError:
            found.append(None)
    return tuple(found)


def _slot(head: SignedHead) -> bytes:
    line = head_line(head, "newest")
    return line + b" " * (_SLOT - 1 - len(line)) + b"\n"


def _write_all(descriptor: int, data: bytes, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def _lock(descriptor: int, path: Path, patience: float, kind: int = fcntl.LOCK_EX) -> None:
    pause, until = 0.0005, time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise LedgerError(
                    f"another process has held the log for {patience:.0f} seconds ({path})\n    -> look for a process that hangs, then try again"
                ) from None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.005)
        else:
            return
