"""Proof that the splits share nothing, recomputed from the files as written."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metier.errors import MetierError
from metier.prepare.compare import turns
from metier.prepare.compose import conversation_key
from metier.records import Record
from metier.shards import SPLITS, read_records

__all__ = ["check_disjoint", "prompt_key"]

_HARD = ("record", "text", "subject", "group", "cluster")
_PROMPT = "prompt"


def prompt_key(record: Record) -> bytes:
    """Return the key of what a record asks: its messages before the answer, or the text of a record without messages."""
    if not record.messages:
        return _digest(record.text)
    before, _ = turns(record)
    return _digest([(message.role, message.content) for message in before])


def _digest(value: Any) -> bytes:
    return hashlib.sha256(repr(value).encode()).digest()[:16]


def _keys(record: Record, cluster: str | None, by: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    yield "record", record.id
    yield "text", _digest(conversation_key(record))
    yield _PROMPT, prompt_key(record)
    if record.subject is not None and "subject" in by:
        yield "subject", record.subject
    if record.group is not None and "group" in by:
        yield "group", record.group
    if cluster is not None:
        yield "cluster", cluster


def check_disjoint(folder: Path, *, by: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Read a dataset's files and return, for each kind of key, how many there are and how many stand in more than one split.

    `by` are the keys that hold records together. Where `prompt` is not among them, shared prompts are only counted: the same
    question with another answer. Raises MetierError if anything else is shared.
    """
    import pyarrow.parquet as pq

    lineage = pq.read_table(folder / "lineage.parquet", columns=["record_id", "cluster"]).to_pydict()
    clusters = dict(zip(lineage["record_id"], lineage["cluster"], strict=True))
    seen: dict[str, dict[Any, int]] = defaultdict(dict)
    for place, split in enumerate(SPLITS):
        for path in sorted(folder.glob(f"part-{split}-*.parquet")):
            for record in read_records(path):
                for kind, key in _keys(record, clusters.get(record.id), by):
                    seen[kind][key] = seen[kind].get(key, 0) | 1 << place
    found = {kind: {"distinct": len(keys), "shared": sum(bits.bit_count() > 1 for bits in keys.values())} for kind, keys in sorted(seen.items())}
    hard = (*_HARD, _PROMPT) if _PROMPT in by else _HARD
    broken = [f"{found[kind]['shared']} {kind}s" for kind in hard if found.get(kind, {}).get("shared")]
    if broken:
        raise MetierError(f"the splits share {', '.join(broken)}; nothing was committed\n    -> this is a bug; report it with the settings of `prepare`")
    return found
