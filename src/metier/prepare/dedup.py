"""Duplicates across all sources, before anything is split.

Exact duplicates share the digest of their content. Near-duplicates are found by MinHash over character shingles and verified: each part of
the two records (question, answer, every field) has to reach the threshold of exact Jaccard similarity, and numbers, units, negations and other
words that turn a statement round have to be the same. A similar pair that fails this is kept in one cluster, so that it is never split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from metier.prepare.chunks import Rows
from metier.prepare.compare import bare, critical, exact_key, fold, parts, question_key, searched
from metier.prepare.language import han_share
from metier.prepare.minhash import Hashes, candidates, jaccard, shingle_sets, signatures
from metier.prepare.settings import DedupSettings
from metier.prepare.union import Sets
from metier.progress import Progress

__all__ = ["Duplicates", "find_duplicates"]

_BLOCK_CHARACTERS = 1 << 22
_HAN_SHARE = 0.2

Preference: TypeAlias = tuple[int, str, str]


@dataclass(slots=True)
class Duplicates:
    """Which rows leave and why, which stay together, and how often each case came up."""

    dropped: dict[int, str] = field(default_factory=dict)
    clusters: dict[int, int] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: {"exact": 0, "near": 0, "guarded": 0, "conflicts": 0, "short": 0, "candidates": 0, "clusters": 0, "clustered_rows": 0}
    )


@dataclass(slots=True)
class _Index:
    """What is kept of every row: nodes are rows that differ exactly; `rows[node]` are its rows, `best[node]` the one that stays."""

    ids: list[str] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)
    questions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    best: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Signed:
    """Signatures of the texts of one kind (Han or other), computed in blocks so that memory stays bounded."""

    size: int
    nodes: list[int] = field(default_factory=list)
    blocks: list[NDArray[np.uint32]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    waiting: int = 0

    def add(self, node: int, text: str) -> None:
        """Take the text of a node."""
        self.nodes.append(node)
        self.texts.append(text)
        self.waiting += len(text)
        if self.waiting > _BLOCK_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Sign the texts that wait."""
        if self.texts:
            self.blocks.append(signatures(*shingle_sets(self.texts, self.size)))
        self.texts, self.waiting = [], 0

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield candidate pairs of nodes."""
        self.flush()
        if self.blocks:
            for left, right in candidates(np.concatenate(self.blocks)):
                yield self.nodes[left], self.nodes[right]


@dataclass(frozen=True, slots=True)
class _Document:
    """A node made ready for verification: shingles of the whole and of each part, the parts' bare letters and critical words."""

    whole: Hashes
    parts: dict[str, Hashes]
    bare: dict[str, str]
    critical: dict[str, tuple[str, ...]]


def find_duplicates(rows: Rows, settings: DedupSettings, progress: Progress) -> Duplicates:
    """Return the duplicates among the rows. The result depends on the rows' content, ids and times, not on their order.

    Of duplicates the longest stays, then the newest, then the one with the smallest id; every row that leaves has a verified
    duplicate among those that stay.
    """
    progress.start("dedup", None, "rows")
    found, index = Duplicates(), _Index()
    signed = {True: _Signed(settings.han_shingle), False: _Signed(settings.other_shingle)}
    _read(rows, index, signed, settings, found, progress)
    sets: Sets[int] = Sets()
    _exact(index, found)
    if settings.near:
        _near(rows, index, signed, settings, (found, sets))
    _conflicts(index, found, sets)
    members: dict[int, list[int]] = defaultdict(list)
    for node, numbers in enumerate(index.rows):
        members[sets.root(node)] += numbers
    for numbers in members.values():
        found.clusters.update(dict.fromkeys(numbers, min(numbers)))
    shared = [numbers for numbers in members.values() if len(numbers) > 1]
    found.counts["clusters"], found.counts["clustered_rows"] = len(shared), sum(map(len, shared))
    progress.finish("dedup", f"{len(found.dropped)} duplicates")
    return found


def _read(rows: Rows, index: _Index, signed: dict[bool, _Signed], settings: DedupSettings, found: Duplicates, progress: Progress) -> None:
    nodes: dict[str, int] = {}
    for number, row in rows:
        record = row.record
        content = searched(parts(record))
        index.ids.append(record.id)
        index.preferences.append((len(content), record.time or "", record.id))
        key = exact_key(record)
        if key in nodes:
            index.rows[nodes[key]].append(number)
        else:
            node = nodes[key] = len(index.rows)
            index.rows.append([number])
            if question := question_key(record):
                index.questions[question].append(node)
            kind = signed[han_share(content) >= _HAN_SHARE]
            found.counts["short"] += len(content) < kind.size
            if settings.near:
                kind.add(node, content)
        progress.advance("dedup")


def _preferred(index: _Index, numbers: Iterable[int]) -> list[int]:
    """Return rows by preference: longest, newest, smallest id."""
    by_id = sorted(numbers, key=lambda number: index.preferences[number][2])
    return sorted(by_id, key=lambda number: index.preferences[number][:2], reverse=True)


def _exact(index: _Index, found: Duplicates) -> None:
    for numbers in index.rows:
        kept, *others = _preferred(index, numbers)
        index.best.append(kept)
        for number in others:
            found.dropped[number] = f"exact_duplicate:{index.ids[kept]}"
            found.counts["exact"] += 1


def _near(rows: Rows, index: _Index, signed: dict[bool, _Signed], settings: DedupSettings, out: tuple[Duplicates, Sets[int]]) -> None:
    found, sets = out
    duplicates: dict[int, dict[int, float]] = defaultdict(dict)
    for kind in signed.values():
        pairs = sorted(kind.pairs())
        found.counts["candidates"] += len(pairs)
        documents = _documents(rows, index, {node for pair in pairs for node in pair}, kind.size)
        for left, right in pairs:
            similarity = jaccard(documents[left].whole, documents[right].whole)
            if similarity < settings.threshold:
                continue
            sets.join(left, right)
            verdict = _verdict(documents[left], documents[right], settings.threshold)
            if verdict == "near":
                duplicates[left][right] = duplicates[right][left] = similarity
            else:
                found.counts[verdict] += 1
    _drop_near(index, duplicates, found)


def _documents(rows: Rows, index: _Index, wanted: set[int], size: int) -> dict[int, _Document]:
    numbers = {index.rows[node][0]: node for node in wanted}
    found: dict[int, _Document] = {}
    if not numbers:
        return found
    for number, row in rows:
        if number in numbers:
            named = parts(row.record)
            sets = {name: _distinct(fold(text), size) for name, text in named.items()}
            letters = {name: bare(text) for name, text in named.items()}
            found[numbers[number]] = _Document(_distinct(searched(named), size), sets, letters, {name: critical(text) for name, text in named.items()})
    return found


def _distinct(text: str, size: int) -> Hashes:
    hashes, _ = shingle_sets([text], size)
    return np.unique(hashes)


def _verdict(left: _Document, right: _Document, threshold: float) -> str:
    """Return what a similar pair is: `near` (a duplicate), `conflicts` (a part differs) or `guarded` (a number or critical word differs)."""
    if left.parts.keys() != right.parts.keys():
        return "conflicts"
    same = all(left.bare[name] == right.bare[name] or jaccard(left.parts[name], right.parts[name]) >= threshold for name in left.parts)
    if not same:
        return "conflicts"
    return "near" if left.critical == right.critical else "guarded"


def _drop_near(index: _Index, duplicates: dict[int, dict[int, float]], found: Duplicates) -> None:
    by_row = {index.best[node]: node for node in duplicates}
    kept: set[int] = set()
    for number in _preferred(index, by_row):
        node = by_row[number]
        rivals = [(similarity, index.best[other]) for other, similarity in duplicates[node].items() if other in kept]
        if not rivals:
            kept.add(node)
            continue
        similarity, rival = max(rivals, key=lambda pair: (pair[0], index.ids[pair[1]]))
        found.dropped[number] = f"near_duplicate:{similarity:.3f} to {index.ids[rival]}"
        found.counts["near"] += 1


def _conflicts(index: _Index, found: Duplicates, sets: Sets[int]) -> None:
    """Keep together what asks the same and is answered differently: kept, counted, for people to arbitrate."""
    for nodes in index.questions.values():
        for node in nodes[1:]:
            if sets.root(nodes[0]) != sets.root(node):
                found.counts["conflicts"] += 1
                sets.join(nodes[0], node)
