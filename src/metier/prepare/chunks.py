"""Chunks of refined rows on disk: what survives an interruption, and what later passes read row by row."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from metier.digest import digest_bytes
from metier.engines import Engine
from metier.progress import Progress
from metier.records import Drop, Record, Source, record_from_dict, record_to_dict
from metier.store import write_atomically

__all__ = ["CHUNK", "Entry", "Refined", "Rows", "refine_all"]

CHUNK = 256


@dataclass(frozen=True, slots=True)
class Refined:
    """A source row that is cleaned and de-identified, what was done to it, and the marks of the surrogates that stand in it.

    `composed` are the conversations that the row gives, each with what was done to it; a row that no template fits gives none.
    """

    record: Record
    transforms: tuple[str, ...]
    surrogates: tuple[str, ...] = ()
    composed: tuple[tuple[Record, tuple[str, ...]], ...] = ()


Entry: TypeAlias = Refined | Drop


@dataclass(frozen=True, slots=True)
class Rows:
    """The refined rows of all chunks, read from disk each time they are asked for."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[tuple[int, Refined]]:
        """Yield each row with its number."""
        number = 0
        for entry in self.entries():
            if isinstance(entry, Refined):
                yield number, entry
                number += 1

    def entries(self) -> Iterator[Entry]:
        """Yield rows and drops in the order of the sources."""
        for path in self.paths:
            with path.open(encoding="utf-8", newline="\n") as stream:
                for line in stream:
                    yield _entry(json.loads(line))


def _line(entry: Entry) -> bytes:
    if isinstance(entry, Drop):
        return _json({"drop": asdict(entry)})
    # A row that is a conversation already is its own composition: it is written once.
    composed = [[None if record == entry.record else record_to_dict(record), list(notes)] for record, notes in entry.composed]
    row = {"record": record_to_dict(entry.record), "transforms": list(entry.transforms), "surrogates": list(entry.surrogates), "composed": composed}
    return _json(row)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _entry(row: dict[str, Any]) -> Entry:
    if "drop" in row:
        source = row["drop"].pop("source")
        return Drop(**row["drop"], source=None if source is None else Source(**source))
    record = record_from_dict(row["record"])
    composed = tuple((record if other is None else record_from_dict(other), tuple(notes)) for other, notes in row["composed"])
    return Refined(record, tuple(row["transforms"]), tuple(row["surrogates"]), composed)


def _name(number: int, items: Sequence[Record | Drop], salt: str) -> str:
    # The id of a record is a digest of its content and place, that of a drop too.
    content = "\n".join((salt, *(item.id if isinstance(item, Record) else item.record_id for item in items)))
    return f"{number:06d}-{digest_bytes(content.encode())[:24]}.jsonl"


def refine_all(
    items: Iterable[Record | Drop], function: Callable[[Sequence[Record | Drop]], list[Entry]], folder: Path, *, salt: str, engine: Engine, progress: Progress
) -> Rows:
    """Apply `function` to chunks of `CHUNK` items through the engine and keep each result as a finished file.

    A chunk whose file is there from an interrupted run is not computed again; the name holds a digest of the items and of
    `salt`, which stands for everything else that the result depends on.
    """
    paths: list[Path] = []
    waiting: deque[Path] = deque()
    source = iter(items)

    def pending() -> Iterator[Sequence[Record | Drop]]:
        while chunk := list(islice(source, CHUNK)):
            path = folder / _name(len(paths), chunk, salt)
            paths.append(path)
            if path.exists():
                progress.advance("refine", len(chunk))
                continue
            waiting.append(path)
            yield chunk

    for entries in engine.map(function, pending()):
        write_atomically(waiting.popleft(), b"".join(_line(entry) + b"\n" for entry in entries))
        progress.advance("refine", len(entries))
    return Rows(tuple(paths))
