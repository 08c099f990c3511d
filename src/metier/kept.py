"""What is kept for whoever needs it next, in a folder of which the newest few entries stay: tokenised examples, answers of the base model.

An entry is a file or a folder that is named by what it was made from; its age is the time at which it was used last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from metier.store import remove_folder

__all__ = ["KEPT", "by_age", "holding"]

KEPT = 8
"""Entries that stay in a folder."""
_LOCK = ".lock"


def by_age(folder: Path) -> dict[Path, float]:
    """Return the entries of a folder and when each was used last (seconds since the epoch), the oldest first."""
    used: dict[Path, float] = {}
    for path in folder.iterdir():
        # What is listed may be gone already: other processes make and clear the same.
        with contextlib.suppress(FileNotFoundError):
            used[path] = path.stat().st_mtime
    return dict(sorted(used.items(), key=lambda item: item[1]))


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
