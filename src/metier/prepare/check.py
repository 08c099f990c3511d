"""What the splits share, recomputed from the files as written."""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.errors import MetierError
from metier.prepare.compare import turns
from metier.prepare.compose import conversation_key
from metier.records import Record
from metier.shards import SPLITS, read_records

__all__ = ["check_disjoint", "part_records", "prompt_key", "shared_keys"]

_HARD = ("record", "text", "subject", "group", "cluster")
_PROMPT = "prompt"


def prompt_key(record: Record) -> bytes:
    """Return the key of what a record asks: its messages before the answer, or the text of a record without messages."""
    if not record.messages:
        return _digest(record.text)
    before, _ = turns(record)
    return _digest([(message.role, message.content) for message in before])


def _digest(value: Any) -> bytes:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).digest()[:16]


def _keys(record: Record, cluster: str | None) -> Iterator[tuple[str, bytes]]:
    yield "record", _digest(record.id)
    yield "text", _digest(conversation_key(record) if record.messages else (record.text, record.label, dict(record.metadata)))
    if record.messages:
        yield _PROMPT, prompt_key(record)
    for kind, value in (("subject", record.subject), ("group", record.group), ("cluster", cluster)):
        if value is not None:
            yield kind, _digest(value)


def part_records(folder: Path) -> Iterator[tuple[int, Record]]:
    """Yield the records of a dataset's parts with the place of their split in `SPLITS`, in the order of the files."""
    for place, split in enumerate(SPLITS):
        for path in sorted(folder.glob(f"part-{split}-*.parquet")):
            for record in read_records(path):
                yield place, record


def _clusters(folder: Path) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the digests of record ids, sorted, and of the cluster of each: 16 bytes a record."""
    import pyarrow.parquet as pq

    records, clusters = array("Q"), array("Q")
    with pq.ParquetFile(folder / "lineage.parquet") as lineage:
        for batch in lineage.iter_batches(columns=["record_id", "cluster"]):
            for record, cluster in zip(*(batch.column(name).to_pylist() for name in ("record_id", "cluster")), strict=True):
                if cluster is not None:
                    records.append(_short(_digest(record)))
                    clusters.append(_short(_digest(cluster)))
    order = np.argsort(np.asarray(records), kind="stable")
    return np.asarray(records)[order], np.asarray(clusters)[order]


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def shared_keys(folder: Path) -> dict[str, dict[str, int]]:
    """Read a dataset's files and return, for each kind of key, how many there are and how many stand in more than one split.

    Keys are compared by 64 bits of their SHA-256, 9 bytes each in memory: two keys that agree by chance (1 in 40,000 for 30 million) could be
    reported as shared, but nothing that is shared can go unseen.
    """
    seen: dict[str, tuple[array[int], array[int]]] = defaultdict(lambda: (array("Q"), array("B")))
    for place, record in part_records(folder):
        for kind, key in _keys(record, None):
            seen[kind][0].append(_short(key))
            seen[kind][1].append(place)
    records, clusters = _clusters(folder)
    if len(records) and "record" in seen:
        keys, places = (np.asarray(items) for items in seen["record"])
        at = np.minimum(np.searchsorted(records, keys), len(records) - 1)
        there = records[at] == keys
        seen["cluster"] = (array("Q", clusters[at[there]].tobytes()), array("B", places[there].tobytes()))
    return {kind: _shared(np.asarray(keys), np.asarray(places)) for kind, (keys, places) in sorted(seen.items())}


def _shared(keys: NDArray[Any], places: NDArray[Any]) -> dict[str, int]:
    order = np.lexsort((places, keys))
    keys, places = keys[order], places[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = keys[1:] != keys[:-1]
    crossing = np.flatnonzero(~fresh[1:] & (places[1:] != places[:-1])) + 1
    number = np.cumsum(fresh)
    return {"distinct": int(np.count_nonzero(fresh)), "shared": len(np.unique(number[crossing]))}


def check_disjoint(folder: Path, *, by: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Return what `shared_keys` does of those keys that count, and refuse a dataset whose splits share one.

    `by` are the keys that hold records together. Where `prompt` is not among them, shared prompts are only counted: the same
    question with another answer. Raises MetierError if anything else is shared.
    """
    found = {kind: numbers for kind, numbers in shared_keys(folder).items() if kind not in ("subject", "group") or kind in by}
    hard = (*_HARD, _PROMPT) if _PROMPT in by else _HARD
    broken = [f"{found[kind]['shared']} {kind}s" for kind in hard if found.get(kind, {}).get("shared")]
    if broken:
        raise MetierError(f"the splits share {', '.join(broken)}; nothing was committed\n    -> this is a bug; report it with the settings of `prepare`")
    return found
