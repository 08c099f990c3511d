"""Training rows that hold what they will be tested with: found by whole text, by long n-grams, by near-duplicate search, and dropped with the reason.

The rule of long n-grams is that of Brown et al., Language models are few-shot learners (2020), appendix C: 13 words in a row that also stand in a
test item are contamination, unless more than 10 training documents hold them (legal boilerplate, phrases of the culture); test items shorter than
that have to match as a whole. Chinese has no word borders; there the unit is a letter, and the length is a setting of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metier.config import Settings
from metier.prepare.compare import parts, searched
from metier.prepare.dedup.sign import Rows, blocks
from metier.prepare.minhash import Banding, band_keys, banding, jaccard, signatures
from metier.prepare.shingles import Hashes, Shingling, distinct, folded, letter_hashes, shingle_sets, word_counts
from metier.progress import SILENT, Progress

__all__ = ["Contamination", "DecontaminateSettings", "Reference", "contaminated", "decontaminate"]

_BLOCK_CHARACTERS = 1 << 18
_FEWEST_WORDS = 8
_EXACT, _GRAM, _NEAR = 1, 2, 3
_RULES = {_EXACT: "exact", _GRAM: "ngram", _NEAR: "near"}


class DecontaminateSettings(Settings):
    """What training rows may not share with what they are tested with."""

    enabled: bool = True
    """Look for test items in the training and validation rows, and drop the rows that hold one."""
    against: tuple[str, ...] = ()
    """Test files of your own, in the project: JSON Lines (every text of an object is looked at) or plain text, an item a line."""
    held_out: bool = False
    """Look for the project's own test split, too. Near-duplicates never stand in two splits; this also drops rows that share a long n-gram."""
    words: int = Field(default=13, ge=5, le=100)
    """Words in a row, shared with a test item, that are contamination where there are no Han letters."""
    han: int = Field(default=20, ge=5, le=200)
    """Letters and words in a row, shared with a test item, that are contamination where there are Han letters."""
    common: int = Field(default=10, ge=0)
    """N-grams that stand in more training rows than this are boilerplate and no evidence."""
    threshold: float = Field(default=0.7, ge=0.5, le=1.0)
    """Exact Jaccard similarity from which a row is a near-duplicate of a test item."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model is tested with: the name that stands in the reason (a file, a task), and the texts of its items."""

    name: str
    texts: Iterable[str]


@dataclass(slots=True)
class Contamination:
    """Which rows leave, why, and how often each rule of each reference was the reason."""

    reasons: dict[int, str] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    boilerplate: int = 0


@dataclass(frozen=True, slots=True)
class _Index:
    """The references as sorted arrays: 16 bytes an n-gram, 16 a band key, 12 a text, and the shingles of every item for exact comparison."""

    names: list[str]
    items: dict[str, int]
    exact: Hashes
    exact_owner: NDArray[np.int32]
    grams: Hashes
    gram_owner: NDArray[np.int32]
    keys: Hashes
    key_item: NDArray[np.int32]
    shingles: list[Hashes]
    item_owner: NDArray[np.int32]
    cut: Shingling
    banding: Banding
    grammar: Shingling


def contaminated(rows: Rows, references: Iterable[Reference], settings: DecontaminateSettings, progress: Progress = SILENT) -> dict[int, str]:
    """Return the rows that hold an item of a reference, with the reason: `near:0.812 to NAME`, `exact:NAME` or `ngram:NAME`."""
    return decontaminate(rows, references, settings, progress).reasons


def decontaminate(rows: Rows, references: Iterable[Reference], settings: DecontaminateSettings, progress: Progress = SILENT) -> Contamination:
    """Return which rows are contaminated, with counts. The rows are read once; memory grows with the references and with what is found, not with the rows.

    A row's whole text is compared, and each of its parts (question, answer, field) that has at least 8 words, the fewest that the cited rule takes
    for evidence. `exact` means the same letters and digits; items too short for an n-gram count only so or as near-duplicates. Of several reasons
    the first of exact, near, ngram is given, and of several references the first, or for `near` the closest.
    """
    index = _indexed(references, settings)
    found = Contamination(items=index.items)
    if not settings.enabled or not index.names:
        return found
    progress.start("decontaminate", None, "rows")
    with TemporaryDirectory(prefix="metier-decontaminate-") as name:
        hits = _Hits(Path(name))
        verdicts = _scan(rows, index, settings, hits, progress)
        grams, boilerplate = hits.rows(len(index.grams), settings.common)
    found.boilerplate = boilerplate
    for number, gram in grams.items():
        verdicts.setdefault(number, (_GRAM, int(index.gram_owner[gram]), 0.0))
    counts: dict[str, Counter[str]] = {name: Counter() for name in index.names}
    for number in sorted(verdicts):
        rule, owner, similarity = verdicts[number]
        name = index.names[owner]
        counts[name][_RULES[rule]] += 1
        found.reasons[number] = f"near:{similarity:.3f} to {name}" if rule == _NEAR else f"{_RULES[rule]}:{name}"
    found.counts = {name: dict(sorted(rules.items())) for name, rules in counts.items()}
    progress.finish("decontaminate", f"{len(found.reasons)} rows")
    return found


def _indexed(references: Iterable[Reference], settings: DecontaminateSettings) -> _Index:
    names: list[str] = []
    items: dict[str, int] = {}
    cut, banded = Shingling(), banding(settings.threshold)
    grammar = Shingling(settings.han, settings.words, "words")
    exact, owners, grams, gram_owners, keys, key_items = [], [], [], [], [], []
    shingles: list[Hashes] = []
    for reference in references:
        owner = len(names)
        names.append(reference.name)
        first = len(shingles)
        for block in _blocks(reference.texts):
            codes = folded(block)
            exact.append(letter_hashes(codes))
            hashes, offsets = shingle_sets(codes, cut)
            keys.append(band_keys(signatures(hashes, offsets), banded))
            key_items.append(np.arange(len(shingles), len(shingles) + len(block), dtype=np.int32))
            shingles += distinct(hashes, offsets)
            found, _ = _grams(codes, grammar)
            grams.append(np.unique(found))
            gram_owners.append(np.full(len(grams[-1]), owner, dtype=np.int32))
        items[reference.name] = len(shingles) - first
        owners.append(np.full(items[reference.name], owner, dtype=np.int32))
    item_owner = np.concatenate(owners) if owners else np.zeros(0, dtype=np.int32)
    flat = np.concatenate(keys).ravel() if keys else np.zeros(0, dtype=np.uint64)
    flat_item = np.repeat(np.concatenate(key_items), banded.bands) if keys else np.zeros(0, dtype=np.int32)
    order = np.argsort(flat, kind="stable")
    whole, whole_owner = _first(exact, item_owner)
    gram, gram_owner = _first(grams, np.concatenate(gram_owners) if gram_owners else item_owner)
    return _Index(names, items, whole, whole_owner, gram, gram_owner, flat[order], flat_item[order], shingles, item_owner, cut, banded, grammar)


def _first(hashes: Sequence[Hashes], owners: NDArray[np.int32]) -> tuple[Hashes, NDArray[np.int32]]:
    """Return the distinct hashes but zero, sorted, with the first owner of each."""
    flat = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)
    found, places = np.unique(flat, return_index=True)
    return found[found != 0], owners[places][found != 0]


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    waiting: list[str] = []
    size = 0
    for text in texts:
        if text and not text.isspace():
            waiting.append(text)
            size += len(text)
            if size >= _BLOCK_CHARACTERS:
                yield waiting
                waiting, size = [], 0
    if waiting:
        yield waiting


def _grams(codes: Any, grammar: Shingling) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hashes of full n-grams and the text of each; a text without one has none here."""
    hashes, offsets = shingle_sets(codes, grammar, whole=False)
    return hashes, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


@dataclass(slots=True)
class _Hits:
    """Which row holds which n-gram of a reference, kept on the disk until all rows are read, because only then it is known which are boilerplate."""

    folder: Path
    count: int = 0

    def add(self, rows: NDArray[np.int64], grams: NDArray[np.int64]) -> None:
        """Take hits: each row with each n-gram once, rows in ascending order."""
        with (self.folder / "hits").open("ab") as stream:
            np.stack((rows, grams), axis=1).astype(np.int64).tofile(stream)
        self.count += len(rows)

    def rows(self, grams: int, common: int) -> tuple[dict[int, int], int]:
        """Return the rows with an n-gram that at most `common` rows hold, each with one such n-gram, and how many n-grams are commoner than that."""
        if not self.count:
            return {}, 0
        hits = np.memmap(self.folder / "hits", dtype=np.int64, mode="r").reshape(-1, 2)
        frequency = np.bincount(hits[:, 1], minlength=grams)
        rare = np.flatnonzero(frequency[hits[:, 1]] <= common)
        numbers, places = np.unique(hits[rare, 0], return_index=True)
        chosen = hits[rare[places], 1]
        return dict(zip(numbers.tolist(), chosen.tolist(), strict=True)), int(np.count_nonzero(frequency > common))


def _scan(rows: Rows, index: _Index, settings: DecontaminateSettings, hits: _Hits, progress: Progress) -> dict[int, tuple[int, int, float]]:
    verdicts: dict[int, tuple[int, int, float]] = {}
    numbers: list[int] = []
    named: list[dict[str, str]] = []
    size = 0
    for number, row in rows:
        found = parts(row.record)
        progress.advance("decontaminate")
        if found:
            numbers.append(number)
            named.append(found)
            size += sum(map(len, found.values()))
        if size >= _BLOCK_CHARACTERS:
            _scan_block(numbers, named, index, settings, (hits, verdicts))
            numbers, named, size = [], [], 0
    if numbers:
        _scan_block(numbers, named, index, settings, (hits, verdicts))
    return verdicts


def _forms(named: Sequence[dict[str, str]]) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_]]:
    """Return what is compared with items: each row's whole text and, of rows with several parts, each part; with the row's place and whether it is whole."""
    texts: list[str] = []
    places: list[int] = []
    whole: list[bool] = []
    for place, found in enumerate(named):
        mine = [searched(found)]
        if len(found) > 1:
            mine += [text for name, text in found.items() if name not in ("system", "label")]
        texts += mine
        places += [place] * len(mine)
        whole += [True] + [False] * (len(mine) - 1)
    return texts, np.array(places, dtype=np.int64), np.array(whole, dtype=bool)


def _scan_block(
    numbers: list[int], named: list[dict[str, str]], index: _Index, settings: DecontaminateSettings, out: tuple[_Hits, dict[int, tuple[int, int, float]]]
) -> None:
    hits, verdicts = out
    texts, places, whole = _forms(named)
    rows = np.array(numbers, dtype=np.int64)[places]
    near: list[tuple[int, int, float]] = []
    first = 0
    for block in blocks(texts):
        some, entire = rows[first : first + len(block)], whole[first : first + len(block)]
        first += len(block)
        codes = folded(block)
        counted = entire | (word_counts(codes) >= _FEWEST_WORDS)
        for place, owner in _exact_hits(letter_hashes(codes), counted, index):
            verdicts.setdefault(int(some[place]), (_EXACT, owner, 0.0))
        hashes, offsets = shingle_sets(codes, index.cut)
        near += [(int(some[place]), owner, similarity) for place, owner, similarity in _near_hits(hashes, offsets, index, settings.threshold) if counted[place]]
        grams, texts_of = _grams(codes, index.grammar)
        at = np.minimum(np.searchsorted(index.grams, grams), max(0, len(index.grams) - 1))
        there = np.flatnonzero((index.grams[at] == grams) & entire[texts_of]) if len(index.grams) else at[:0]
        if len(there):
            pairs = np.unique(np.stack((some[texts_of[there]], at[there]), axis=1), axis=0)
            hits.add(pairs[:, 0], pairs[:, 1])
    for row, owner, similarity in sorted(near, key=lambda hit: (hit[0], -hit[2], hit[1])):
        verdicts.setdefault(row, (_NEAR, owner, similarity))


def _exact_hits(letters: Hashes, counted: NDArray[np.bool_], index: _Index) -> Iterator[tuple[int, int]]:
    """Yield texts of a block whose letters and digits are those of an item: (place in the block, owner)."""
    if len(index.exact):
        at = np.minimum(np.searchsorted(index.exact, letters), len(index.exact) - 1)
        for place in np.flatnonzero((index.exact[at] == letters) & counted).tolist():
            yield place, int(index.exact_owner[at[place]])


def _near_hits(hashes: Hashes, offsets: NDArray[np.int64], index: _Index, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield rows of a block that are near-duplicates of an item: (place in the block, owner, similarity of the closest item)."""
    keys = band_keys(signatures(hashes, offsets), index.banding)
    low, high = np.searchsorted(index.keys, keys, side="left"), np.searchsorted(index.keys, keys, side="right")
    for place in np.flatnonzero((high > low).any(axis=1)).tolist():
        spans = [index.key_item[first:last] for first, last in zip(low[place].tolist(), high[place].tolist(), strict=True) if last > first]
        mine = distinct(hashes, offsets[place : place + 2])[0]
        best, owner = 0.0, -1
        for item in np.unique(np.concatenate(spans)).tolist():
            similarity = jaccard(mine, index.shingles[item])
            if similarity >= threshold and similarity > best:
                best, owner = similarity, int(index.item_owner[item])
        if owner >= 0:
            yield place, owner, best
