"""A proof that the splits share nothing: `proof.json` in the dataset's folder, which anybody recomputes from the folder alone.

It holds the root of a Merkle tree (RFC 6962) over the records in the order of their ids, each with its split, and what is shared between the splits:
by key, by long n-gram, and by similarity. Similarity is measured anew on the texts, not read from the clusters that the splitter used.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.audit.merkle import Frontier, leaf_hash
from metier.digest import canonical_json
from metier.errors import Fault, InputError
from metier.prepare.check import part_records, shared_keys
from metier.prepare.compare import parts, searched
from metier.prepare.decontaminate import DecontaminateSettings, Reference, decontaminate
from metier.prepare.dedup import DedupSettings, Records, find_duplicates
from metier.prepare.dedup.verify import CONFLICT, GUARDED, NEAR, RELATED
from metier.prepare.minhash import implementation
from metier.records import Record
from metier.shards import SPLITS
from metier.store import write_atomically

__all__ = ["FILE", "check_proof", "prove", "record_leaf", "write_proof"]

FILE = "proof.json"
_MOST_ITEMS = 50_000


@dataclass(frozen=True, slots=True)
class _Parts:
    """The records of some splits of a folder."""

    folder: Path
    places: tuple[int, ...] = (0, 1, 2)

    def __iter__(self) -> Iterator[Record]:
        return (record for place, record in part_records(self.folder) if place in self.places)


def record_leaf(record_id: str, split: str) -> bytes:
    """Return the leaf of a record: its id, a zero byte and the name of its split."""
    return record_id.encode() + b"\x00" + split.encode()


def prove(
    folder: Path, *, dedup: DedupSettings | None = None, decontaminate_by: DecontaminateSettings | None = None, by: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the proof for a dataset's folder: plain values, no text, no id.

    `keys` counts keys of each kind and those in more than one split; `ngrams` the training records that hold a long n-gram, the whole or nearly the
    whole of a held-out record; `similar` the pairs across splits whose similarity reaches the threshold, by what they are: `near` (duplicates),
    `guarded` (another number or critical word), `conflicts` (another answer), `related` (another question with much the same text). `by` are the
    kinds of keys that had to be kept apart; `holds` says that no
    record, text, cluster or key of `by` is shared. Raises InputError if the folder is not a dataset.
    """
    if not (folder / "lineage.parquet").is_file() or not list(folder.glob("part-*.parquet")):
        raise InputError(Fault("this folder has no parts and no lineage", path=folder, remedy="name the folder of a finished dataset"))
    keys = shared_keys(folder)
    dedup, decontaminate_by = dedup or DedupSettings(), decontaminate_by or DecontaminateSettings()
    hard = {"record", "text", "cluster", *by}
    root, counts = _root(folder)
    return {
        "proof": 1,
        "records": sum(counts.values()),
        "splits": counts,
        "root": root,
        "by": sorted(by),
        "keys": keys,
        "ngrams": _ngrams(folder, decontaminate_by),
        "similar": _similar(folder, dedup),
        "settings": {"dedup": dedup.model_dump(mode="json"), "decontaminate": decontaminate_by.model_dump(mode="json"), "minhash": implementation()},
        "holds": not any(numbers["shared"] for kind, numbers in keys.items() if kind in hard),
    }


def _root(folder: Path) -> tuple[str, dict[str, int]]:
    counts: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
    blocks: list[NDArray[np.bytes_]] = []
    waiting: list[bytes] = []
    for place, record in part_records(folder):
        counts[SPLITS[place]] += 1
        waiting.append(record_leaf(record.id, SPLITS[place]))
        if len(waiting) == 1 << 16:
            blocks.append(np.array(waiting, dtype=np.bytes_))
            waiting = []
    leaves = np.sort(np.concatenate([*blocks, np.array(waiting, dtype="S1" if not waiting else np.bytes_)]))
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf_hash(bytes(leaf)))
    return tree.root().hex(), dict(counts)


def _ngrams(folder: Path, settings: DecontaminateSettings) -> dict[str, Any]:
    """Return how many training records hold something of a held-out record. Of each held-out split the first 50,000 are checked; the figures say so."""
    references, sizes = [], {}
    for place in (1, 2):
        name = SPLITS[place]
        texts = [searched(parts(record)) for record in islice(_Parts(folder, (place,)), _MOST_ITEMS)]
        sizes[name] = {"checked": len(texts), "of": sum(1 for _ in _Parts(folder, (place,)))}
        references.append(Reference(name, texts))
    found = decontaminate(Records(_Parts(folder, (0,))), references, settings)
    return {"held_out": sizes, "training_records": found.counts, "boilerplate_ngrams": found.boilerplate}


def _similar(folder: Path, settings: DedupSettings) -> dict[str, int]:
    """Return the similar pairs across splits. A pair of texts counts once, however many records have them."""
    found = find_duplicates(Records(_Parts(folder)), settings)
    places = np.frombuffer(array("B", (1 << place for place, _ in part_records(folder))), dtype=np.uint8)
    left, right, verdicts = found.similar()
    bits = np.zeros(len(found.clusters), dtype=np.uint8)
    np.bitwise_or.at(bits, found.nodes, places)
    both = bits[left] | bits[right]
    crossing = (both & (both - np.uint8(1))) != 0
    names = {NEAR: "near", GUARDED: "guarded", CONFLICT: "conflicts", RELATED: "related"}
    return {name: int(np.count_nonzero(crossing & (verdicts == verdict))) for verdict, name in names.items()}


def write_proof(folder: Path, proof: dict[str, Any]) -> Path:
    """Write a proof into a dataset's folder and return its path. The bytes depend on the proof alone."""
    path = folder / FILE
    write_atomically(path, canonical_json(proof) + b"\n")
    return path


def check_proof(folder: Path) -> list[str]:
    """Recompute the proof of a dataset's folder with the settings that it names, and return what differs: nothing if it holds as written.

    Raises InputError if there is no proof, or it was computed with another implementation of signatures, which may see other pairs.
    """
    try:
        stored = json.loads((folder / FILE).read_bytes())
        dedup = DedupSettings.model_validate_json(json.dumps(stored["settings"]["dedup"]))
        rules = DecontaminateSettings.model_validate_json(json.dumps(stored["settings"]["decontaminate"]))
        by = tuple(stored["by"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Fault("there is no proof that can be read", path=folder / FILE, remedy="build the dataset again, or write a proof first")) from error
    if stored["settings"].get("minhash") != implementation():
        what = f"the proof was computed with {stored['settings'].get('minhash')}, and here is {implementation()}"
        raise InputError(Fault(what, path=folder / FILE, remedy="install or remove the package rensa: pip install 'metier[data]'"))
    again = json.loads(canonical_json(prove(folder, dedup=dedup, decontaminate_by=rules, by=by)))
    return [
        f"{name}: {_said(stored.get(name))} is written, {_said(again.get(name))} is found"
        for name in sorted({*stored, *again})
        if stored.get(name) != again.get(name)
    ]


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
