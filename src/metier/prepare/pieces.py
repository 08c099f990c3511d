"""Slow work kept piece by piece: a finished piece is one file, and the same call after an interruption reads it instead of doing the work again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from metier.digest import canonical_json
from metier.records import Drop, Record, Source, record_from_dict, record_to_dict
from metier.store import write_atomically

__all__ = ["kept"]


def kept(path: Path, work: Callable[[], Iterable[Record | Drop]]) -> Iterator[Record | Drop]:
    """Yield what stands in the file, after doing the work and writing the file (aside, then renamed) if it is not there.

    The file's name has to hold the digest of everything that the work depends on.
    """
    if not path.exists():
        write_atomically(path, b"".join(_line(entry) + b"\n" for entry in work()))
    for line in path.read_bytes().splitlines():
        row = json.loads(line)
        if "record" in row:
            yield record_from_dict(row["record"])
        else:
            source = row["drop"].pop("source")
            yield Drop(**row["drop"], source=None if source is None else Source(**source))


def _line(entry: Record | Drop) -> bytes:
    return canonical_json({"drop": asdict(entry)} if isinstance(entry, Drop) else {"record": record_to_dict(entry)})
