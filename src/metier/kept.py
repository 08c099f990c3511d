"""What is kept for whoever needs it next, in a folder of which the newest few entries stay: tokenised examples, answers of the base model.

An entry is a file or a folder that is named by what it was made from; its age is the time at which it was used last.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from metier.store import remove_folder

__all__ = ["KEPT", "aside", "by_age", "holding"]

KEPT = 8
"""Entries that stay in a folder."""
_LOCK = ".lock"
_ASIDE = ".writing-"
_ABANDONED = 24 * 3600
"""Seconds after which what was being written belongs to nobody any more."""


def by_age(folder: Path) -> dict[Path, float]:
    """Return the entries of a folder and when each was used last (seconds since the epoch), the oldest first."""
    used: dict[Path, float] = {}
    for path in folder.iterdir():
        # What is listed may be gone already: other processes make and clear the same.
        with contextlib.suppress(FileNotFoundError):
            used[path] = path.stat().st_mtime
    return dict(sorted(used.items(), key=lambda item: item[1]))


@contextmanager
def aside(place: Path, key: str, *, kept: int = KEPT) -> Iterator[Path]:
    """Give a folder to write KEY in, beside where it will be, and take it away after the block unless it was renamed into place.

    So that `kept` are there after it, what was used longest ago is cleared before, and with it what a process that was killed has left of its writing.
    """
    place.mkdir(parents=True, exist_ok=True)
    used = by_age(place)
    whole = [path for path in used if not path.name.startswith(_ASIDE)]
    abandoned = [path for path, since in used.items() if path.name.startswith(_ASIDE) and since < time.time() - _ABANDONED]
    for path in [*whole[: max(0, len(whole) - kept + 1)], *abandoned]:
        remove_folder(path)
    with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=place) as name:
        folder = Path(name) / key
        folder.mkdir()
        yield folder


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold an entry alone while it is read or written: it is not cleared meanwhile. Others wait.

    Of the entries beside it the `KEPT` - 1 that were used last stay; older ones go unless somebody holds them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = FileLock(_lock_of(path))
    while True:
        own.acquire()
        if Path(own.lock_file).exists():
            break
        own.release()  # somebody cleared the entry, and its lock with it, between our opening the lock and our holding it
    try:
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
        _clear(path)
        yield
    finally:
        own.release()


def _clear(path: Path) -> None:
    others = [item for item in by_age(path.parent) if item != path and item.suffix != _LOCK]
    for old in others[: -(KEPT - 1)]:
        lock = FileLock(_lock_of(old))
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            if old.is_dir():
                remove_folder(old)
            else:
                old.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(path: Path) -> Path:
    return path.with_suffix(_LOCK)
