"""Folders that are made once and found again by their key: written aside, renamed into place, and cleared when others were used since."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from metier.store import remove_folder

__all__ = ["aside", "clear"]

_ASIDE = ".writing-"
_ABANDONED = 24 * 3600
"""Seconds after which what was being written belongs to nobody any more."""


@contextlib.contextmanager
def aside(place: Path, key: str, *, kept: int) -> Iterator[Path]:
    """Give a folder to write KEY in, beside where it will be, and take it away after the block unless it was renamed into place.

    So that `kept` are there after it, what was used longest ago is cleared before, and with it what a process that was killed has left of its writing.
    """
    place.mkdir(parents=True, exist_ok=True)
    clear(place, kept=kept - 1)
    with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=place) as name:
        folder = Path(name) / key
        folder.mkdir()
        yield folder


def clear(place: Path, *, kept: int) -> None:
    """Keep the folders that were used last, by the time of their last change, and what another process may be writing."""
    used: dict[Path, float] = {}
    for path in place.iterdir():
        # What is listed may be gone already: other processes make and clear the same.
        with contextlib.suppress(FileNotFoundError):
            used[path] = path.stat().st_mtime
    whole = sorted((path for path in used if not path.name.startswith(_ASIDE)), key=lambda path: used[path])
    abandoned = [path for path, since in used.items() if path.name.startswith(_ASIDE) and since < time.time() - _ABANDONED]
    for path in [*whole[: max(0, len(whole) - kept)], *abandoned]:
        remove_folder(path)
