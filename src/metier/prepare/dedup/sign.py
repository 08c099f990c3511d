"""The map phase: a shard of records becomes columns and a sorted run of band keys. A shard needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metier.prepare.compare import asked_and_answered, exact_key, parts, searched
from metier.prepare.dedup.settings import DedupSettings
from metier.prepare.minhash import Banding, band_keys, banding, signatures
from metier.prepare.shingles import Shingling, folded, shingle_sets
from metier.prepare.split import moment_number
from metier.records import Record

__all__ = ["BAND", "COLUMNS", "Columns", "Plan", "Records", "Row", "Rows", "blocks", "plan_of", "sign"]

Columns: TypeAlias = dict[str, NDArray[Any]]

BAND = np.dtype([("key", "<u8"), ("row", "<u4")])
"""One entry of a run: a band's key and the place of its row in the shard."""

COLUMNS = ("digest", "asked", "answered", "score", "length", "time", "id", "short", "empty")
_CACHED_CHARACTERS = 1 << 15


class Row(Protocol):
    """What is read of a row."""

    @property
    def record(self) -> Record:
        """The record."""


class Rows(Protocol):
    """Rows numbered 0, 1, 2 and so on, the same each time they are asked for."""

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        """Yield each row with its number."""


@dataclass(frozen=True, slots=True)
class _Numbered:
    record: Record


@dataclass(frozen=True, slots=True)
class Records:
    """Records that can be iterated again and again, as rows."""

    records: Iterable[Record]

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        """Yield each record with its number."""
        return enumerate(map(_Numbered, self.records))


@dataclass(frozen=True, slots=True)
class Plan:
    """What the phases need of the settings; it travels to other processes."""

    near: bool
    threshold: float
    cut: Shingling
    banding: Banding
    answers: tuple[str, ...]
    score: str | None


def plan_of(settings: DedupSettings) -> Plan:
    """Return the plan of the settings."""
    words = settings.word_shingle
    cut = Shingling(settings.han_shingle, words or settings.other_shingle, "words" if words else "characters")
    return Plan(settings.near, settings.threshold, cut, banding(settings.threshold), settings.answers, settings.score)


def blocks(texts: Sequence[str], characters: int = _CACHED_CHARACTERS) -> Iterator[Sequence[str]]:
    """Yield runs of texts of about so many characters together, which the caches of a processor hold; a longer text is alone."""
    first, waiting = 0, 0
    for place, text in enumerate(texts):
        waiting += len(text)
        if waiting >= characters:
            yield texts[first : place + 1]
            first, waiting = place + 1, 0
    if first < len(texts):
        yield texts[first:]


def sign(plan: Plan, records: Sequence[Record]) -> tuple[Columns, NDArray[Any]]:
    """Return the columns of a shard, one entry a record, and its band entries sorted by key.

    `digest`, `asked` and `answered` are 16-byte digests as two words (zero where nothing is asked), `short` marks texts shorter than a shingle.
    """
    named = [parts(record, without=plan.score) for record in records]
    texts = [searched(found) for found in named]
    nothing = (bytes(16), bytes(16))
    dialogues = [asked_and_answered(found, plan.answers) or nothing for found in named]
    columns: Columns = {
        "digest": _words(exact_key(found) for found in named),
        "asked": _words(asked for asked, _ in dialogues),
        "answered": _words(answered for _, answered in dialogues),
        "score": np.array([_score(record, plan.score) for record in records], dtype=np.float64),
        "time": np.array([moment_number(record.time) or 0 for record in records], dtype=np.int64),
        "id": np.array([record.id.encode() for record in records], dtype=np.bytes_),
        "empty": np.array([not found for found in named], dtype=bool),
    }
    lengths, keys, shorts = [], [], []
    for block in blocks(texts):
        codes = folded(block)
        lengths.append(np.diff(codes.offsets))
        hashes, offsets = shingle_sets(codes, plan.cut)
        shorts.append((np.diff(offsets) == 1) & (lengths[-1] < np.where(codes.han() > 0, plan.cut.han, plan.cut.other)))
        if plan.near:
            keys.append(band_keys(signatures(hashes, offsets), plan.banding))
    columns["length"] = _joined(lengths, np.int64)
    columns["short"] = _joined(shorts, bool)
    return columns, _run(keys, columns["length"] > 0)


def _joined(found: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(found) if found else np.zeros(0, dtype=kind)


def _words(digests: Iterable[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)


def _score(record: Record, name: str | None) -> float:
    value = record.metadata.get(name) if name is not None else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value) else -np.inf


def _run(keys: Sequence[NDArray[np.uint64]], there: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the entries of rows that hold a text, sorted by key, then row."""
    if not keys:
        return np.zeros(0, dtype=BAND)
    matrix = np.concatenate(keys)[there]
    flat = matrix.ravel()
    order = np.argsort(flat, kind="stable")
    run = np.empty(len(flat), dtype=BAND)
    run["key"] = flat[order]
    run["row"] = np.repeat(np.flatnonzero(there).astype(np.uint32), matrix.shape[1])[order]
    return run
