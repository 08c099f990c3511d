"""The reduce phase: candidate pairs are compared exactly, part by part, from texts that are read by position."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.prepare.compare import bare, clauses, critical, is_answer, same_sense, searched
from metier.prepare.dedup.shuffle import Pairs, unpacked
from metier.prepare.dedup.sign import Plan, blocks
from metier.prepare.minhash import jaccard
from metier.prepare.shingles import Hashes, Shingling, distinct, shingle_sets

__all__ = ["CONFLICT", "GUARDED", "NEAR", "RELATED", "Texts", "batches", "senses", "verdict", "verify"]

NEAR, GUARDED, CONFLICT, RELATED = 1, 2, 3, 4
"""What a similar pair is: a duplicate; the same but for a number or a critical word; the same question with another answer; something else in common."""

_PAIRS, _BYTES = 2048, 1 << 25


@dataclass(frozen=True, slots=True)
class Texts:
    """The parts of candidate nodes in one file; `nodes` is sorted, `bounds[i]:bounds[i] + sizes[i]` are the bytes of `nodes[i]`."""

    path: Path
    nodes: NDArray[np.int64]
    bounds: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @staticmethod
    def open(path: Path) -> Texts:
        """Return the texts of a file and the index beside it."""
        index = np.load(path.with_suffix(".npz"))
        return Texts(path, index["nodes"], index["bounds"], index["sizes"])

    def size(self, nodes: NDArray[Any]) -> NDArray[np.int64]:
        """Return the bytes of each of these nodes."""
        return self.sizes[np.searchsorted(self.nodes, nodes)]

    def read(self, nodes: NDArray[Any]) -> dict[int, dict[str, str]]:
        """Return the parts of these nodes, read in the order of the file."""
        places = np.searchsorted(self.nodes, nodes)
        order = np.argsort(self.bounds[places], kind="stable")
        found: dict[int, dict[str, str]] = {}
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for node, place in zip(nodes[order].tolist(), places[order].tolist(), strict=True):
                found[node] = json.loads(os.pread(descriptor, int(self.sizes[place]), int(self.bounds[place])))
        finally:
            os.close(descriptor)
        return found


@dataclass(slots=True)
class _Forms:
    """What verdicts need of one node, made when first needed."""

    parts: Mapping[str, str]
    bare: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, Hashes] = field(default_factory=dict)
    split: dict[str, tuple[tuple[str, ...], frozenset[str]]] = field(default_factory=dict)

    def letters(self, name: str) -> str:
        """Return the letters and digits of a part."""
        if name not in self.bare:
            self.bare[name] = bare(self.parts[name])
        return self.bare[name]

    def clauses(self, name: str) -> tuple[tuple[str, ...], frozenset[str]]:
        """Return the clauses of a part."""
        if name not in self.split:
            self.split[name] = clauses(self.parts[name])
        return self.split[name]

    def shingles(self, name: str, cut: Shingling) -> Hashes:
        """Return the distinct shingles of a part."""
        if name not in self.hashes:
            self.hashes[name] = distinct(*shingle_sets([self.parts[name]], cut))[0]
        return self.hashes[name]


def batches(texts: Texts, pairs: Pairs) -> Iterator[Pairs]:
    """Yield runs of sorted pairs, at most 2,048 pairs and about 32 MiB of text each (one pair may be bigger)."""
    left, right = unpacked(pairs)
    cost = texts.size(right)
    fresh = np.ones(len(left), dtype=bool)
    fresh[1:] = left[1:] != left[:-1]
    cost[fresh] += texts.size(left[fresh])
    first = 0
    total = np.cumsum(cost)
    while first < len(pairs):
        start = total[first - 1] if first else 0
        last = min(first + _PAIRS, max(first + 1, int(np.searchsorted(total, start + _BYTES, side="right"))))
        yield pairs[first:last]
        first = last


def verify(plan: Plan, path: Path, pairs: Pairs) -> tuple[Pairs, NDArray[np.float32], NDArray[np.uint8]]:
    """Return those of the pairs whose exact similarity reaches the threshold, the similarity and the verdict of each."""
    left, right = unpacked(pairs)
    nodes = np.unique(np.concatenate((left, right)))
    parts = Texts.open(path).read(nodes)
    order = list(parts)
    whole: dict[int, Hashes] = {}
    for block in blocks([searched(parts[node]) for node in order]):
        for found in distinct(*shingle_sets(block, plan.cut)):
            whole[order[len(whole)]] = found
    forms = {node: _Forms(named) for node, named in parts.items()}
    kept, similarities, verdicts = [], [], []
    for place, (one, other) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        similarity = _similarity(whole[one], whole[other], plan.threshold)
        if similarity >= plan.threshold:
            kept.append(place)
            similarities.append(similarity)
            verdicts.append(verdict(forms[one], forms[other], plan))
    return pairs[kept], np.array(similarities, dtype=np.float32), np.array(verdicts, dtype=np.uint8)


def _similarity(left: Hashes, right: Hashes, threshold: float) -> float:
    """Return the Jaccard similarity, or zero where the sizes alone rule the threshold out."""
    if min(len(left), len(right)) < threshold * max(len(left), len(right)):
        return 0.0
    return jaccard(left, right)


def verdict(left: _Forms, right: _Forms, plan: Plan) -> int:
    """Return what a pair is whose whole texts are similar: every part has to be similar, too, and to say the same."""
    if left.parts.keys() != right.parts.keys():
        return RELATED
    differing = [name for name in left.parts if left.parts[name] != right.parts[name]]
    if len(left.parts) > 1:  # a part that is alone is the whole, and similar
        apart = [name for name in differing if not _same_part(left, right, name, plan)]
        if apart:
            return CONFLICT if all(is_answer(name, plan.answers) for name in apart) else RELATED
    return NEAR if all(same_sense(left.clauses(name), right.clauses(name)) for name in differing) else GUARDED


def _same_part(left: _Forms, right: _Forms, name: str, plan: Plan) -> bool:
    if left.letters(name) == right.letters(name) != "":
        return True
    return _similarity(left.shingles(name, plan.cut), right.shingles(name, plan.cut), plan.threshold) >= plan.threshold


def senses(path: Path, nodes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a digest of the critical words of each node: equal where the nodes can be duplicates."""
    found = Texts.open(path).read(nodes)
    keys = (json.dumps({name: critical(text) for name, text in sorted(found[node].items())}).encode() for node in nodes.tolist())
    return np.frombuffer(b"".join(blake2b(key, digest_size=8).digest() for key in keys), dtype="<u8").astype(np.uint64)
