"""The folder of an export: made aside, filled, and put in its place when everything in it was checked."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metier.errors import InputError, StoreError
from metier.store import remove_folder, sync_folder

__all__ = ["aside", "check_place"]

_MARK = ".unfinished-export"


def check_place(out: Path) -> None:
    """Raise InputError unless `out` is a place where a new folder can be made: nothing is ever written over."""
    if out.exists() or out.is_symlink():
        raise InputError(f"--out: there is something at {out}\n    -> name a folder that is not there yet; an export is never written over another")
    above = next((parent for parent in out.absolute().parents if parent.exists()), None)
    if above is None or not above.is_dir():
        raise InputError(f"--out: {above} is no folder, so {out} cannot be made\n    -> name another place")


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to fill; if the block ends well it becomes `out`, otherwise nothing is left of it.

    What a killed export left there is cleared away first. Raises StoreError if the disk is full or the place cannot be written.
    """
    folder = out.parent / f".{out.name}{_MARK}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(folder)
        folder.mkdir()
        yield folder
        sync_folder(folder)
        folder.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"the disk that holds {out.parent} is full" if full else f"{error.filename or out} cannot be written: {error.strerror or error}"
        raise StoreError(f"{what}; nothing half-written was kept\n    -> free some space, or name another place, and run the same command again") from error
    finally:
        remove_folder(folder)
