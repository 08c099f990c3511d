"""The search for duplicates, phase by phase; each phase's files are kept, so that an interrupted search goes on where it was.

::

    sign        map        shard -> columns, a sorted run of band keys
    nodes       shuffle    rows by digest -> exact duplicates
    candidates  shuffle    entries by band key -> pairs of nodes, in partitions
    texts       map        rows that stand in a pair, by position
    verify      reduce     pairs -> similarity and verdict
    again       shuffle    nodes of big buckets by what they say -> pairs, verified too
    decide                 who leaves, what stays together, what is in conflict
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.digest import digest_of
from metier.engines import LOCAL, Engine
from metier.errors import MetierError
from metier.prepare.dedup.decide import clusters_of, conflict_lines, drops, same_question
from metier.prepare.dedup.disk import join_columns, save, save_run, write_texts
from metier.prepare.dedup.nodes import Nodes, by_preference, nodes_of
from metier.prepare.dedup.result import EXACT, NEAR_COPY, Duplicates, Edges
from metier.prepare.dedup.settings import DedupSettings
from metier.prepare.dedup.shuffle import Pairs, bucket_pairs, candidates, merged, partition_count, unpacked
from metier.prepare.dedup.sign import Plan, Rows, plan_of, sign
from metier.prepare.dedup.verify import CONFLICT, GUARDED, RELATED, Texts, batches, senses, verify
from metier.prepare.minhash import implementation
from metier.prepare.union import components
from metier.progress import SILENT, Progress
from metier.records import Record
from metier.store import write_atomically

__all__ = ["find_duplicates"]

_ROWS_A_SHARD, _CHARACTERS_A_SHARD = 8192, 1 << 23
_VERSION = 1
_MOST_ROWS = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Work:
    """What every phase is given."""

    plan: Plan
    folder: Path
    engine: Engine

    def kept(self, name: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a finished phase's file, made now if it is not there."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            save(path, make())
        with np.load(path) as found:
            return {key: found[key] for key in found.files}


def find_duplicates(
    rows: Rows, settings: DedupSettings, progress: Progress = SILENT, *, folder: Path | None = None, engine: Engine = LOCAL, shard: int = _ROWS_A_SHARD
) -> Duplicates:
    """Return the duplicates among the rows. The result depends on the rows' content, ids, scores and times, not on their order, shards or processes.

    Of duplicates the one with the highest score stays, then the longest, the newest, the one with the smallest id; every row that leaves has a
    verified duplicate among those that stay. The rows are read twice. What is found on the way is kept in `folder`: a search that was
    interrupted goes on from its last finished file, and files of other rows or settings are not taken. Without a folder nothing is kept, and the
    queue of conflicts is not written. Raises MetierError if there are 2^32 rows or more, or their numbers are not 0, 1, 2 and so on.
    """
    if folder is None:
        with TemporaryDirectory(prefix="metier-dedup-") as name:
            found = _find(rows, settings, progress, Path(name), (engine, shard))
            reasons = replace(found.dropped, ids=np.array(found.dropped.ids))
            return replace(found, dropped=reasons, conflicts=None)
    return _find(rows, settings, progress, folder, (engine, shard))


def _find(rows: Rows, settings: DedupSettings, progress: Progress, folder: Path, how: tuple[Engine, int]) -> Duplicates:
    progress.start("dedup", None, "rows")
    plan, engine = plan_of(settings), how[0]
    shards = _signed(rows, plan, folder / "signed", progress, how)
    work = _Work(plan, folder / sha256("".join(path.name for path in shards).encode()).hexdigest()[:24], engine)
    work.folder.mkdir(parents=True, exist_ok=True)
    columns, runs = join_columns(shards, work.folder)
    if len(columns["score"]) > _MOST_ROWS:
        raise MetierError(f"{len(columns['score'])} rows are too many for one search\n    -> divide the sources; one search holds {_MOST_ROWS} rows")
    found = work.kept("nodes", lambda: _as_arrays(nodes_of(columns)))
    nodes = Nodes(found["of"], found["first"], found["best"])
    edges, tried = _near(rows, work, (columns, nodes), runs) if plan.near else (_no_edges(), 0)
    result = _decided(work, columns, nodes, edges, tried)
    progress.finish("dedup", f"{len(result.dropped)} duplicates")
    return result


def _as_arrays(nodes: Nodes) -> dict[str, NDArray[Any]]:
    return {"of": nodes.of, "first": nodes.first, "best": nodes.best}


def _no_edges() -> Edges:
    return Edges(np.zeros(0, np.uint64), np.zeros(0, np.float32), np.zeros(0, np.uint8))


def _signed(rows: Rows, plan: Plan, folder: Path, progress: Progress, how: tuple[Engine, int]) -> list[Path]:
    """Sign the shards that are not there yet. A shard's name holds a digest of its records and of all that its columns depend on."""
    salt = digest_of([_VERSION, implementation(), repr(plan)])
    paths: list[Path] = []
    waiting: list[Path] = []

    def pending() -> Iterator[list[Record]]:
        for records in _shards(rows, how[1]):
            path = folder / f"{len(paths):06d}-{_fingerprint(records, salt)}.npz"
            paths.append(path)
            progress.advance("dedup", len(records))
            if not path.exists():
                waiting.append(path)
                yield records

    for columns, run in how[0].map(partial(sign, plan), pending()):
        save_run(waiting.pop(0), columns, run)
    return paths


def _shards(rows: Rows, most: int) -> Iterator[list[Record]]:
    shard: list[Record] = []
    size = 0
    for place, (number, row) in enumerate(rows):
        if number != place:
            raise MetierError(f"row {place} has the number {number}\n    -> rows have to be numbered from 0 without gaps")
        shard.append(row.record)
        size += len(row.record.text) + sum(len(message.content) for message in row.record.messages)
        if len(shard) == most or size >= _CHARACTERS_A_SHARD:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _fingerprint(records: Sequence[Record], salt: str) -> str:
    hasher = sha256(salt.encode())
    for record in records:
        texts = [record.id, record.label or "", record.time or "", record.text]
        texts += [item for message in record.messages for item in (message.role, str(message.learn), message.content)]
        if record.metadata:
            texts.append(repr(sorted(record.metadata.items())))
        hasher.update("".join(f"{len(text)}:{text}" for text in texts).encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()[:24]


def _near(rows: Rows, work: _Work, known: tuple[dict[str, NDArray[Any]], Nodes], runs: Sequence[tuple[Path, int]]) -> tuple[Edges, int]:
    columns, nodes = known
    pairs, big = _candidates(work, nodes, runs)
    if not pairs:
        return _no_edges(), 0
    texts = work.folder / "texts"
    if not texts.with_suffix(".npz").exists():
        wanted = np.zeros(len(nodes.first), dtype=bool)
        for path in pairs:
            for ends in unpacked(np.load(path)):
                wanted[ends] = True
        named = np.flatnonzero(wanted)
        order = np.argsort(nodes.first[named])
        write_texts(texts, rows, nodes.first[named][order].astype(np.int64), named[order], work.plan)
    edges, tried = _verified(work, texts, "edges", merged(pairs, len(nodes.first)))
    if len(big):
        more = _again(work, texts, (columns, nodes), edges, big)
        extra, others = _verified(work, texts, "again", iter([more]))
        edges, tried = _added(edges, extra), tried + others
    return edges, tried


def _candidates(work: _Work, nodes: Nodes, runs: Sequence[tuple[Path, int]]) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the files of candidate pairs, one a partition, and the nodes of big buckets."""
    entries = sum(len(np.load(path, mmap_mode="r")) for path, _ in runs)
    if not entries:
        return [], np.zeros(0, dtype=np.int64)
    of = work.folder / "of.npy"
    if not of.exists():
        save(of, {"": nodes.of})
    count = partition_count(entries)
    paths = [work.folder / f"pairs-{number:05d}.npy" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.with_suffix(".big.npy").exists()]
    for number, (pairs, big) in zip(missing, work.engine.map(partial(candidates, runs, of, count), missing), strict=True):
        save(paths[number], {"": pairs})
        save(paths[number].with_suffix(".big.npy"), {"": big})
    return paths, np.unique(np.concatenate([np.load(path.with_suffix(".big.npy")) for path in paths]))


def _verified(work: _Work, path: Path, name: str, ranges: Iterator[Pairs]) -> tuple[Edges, int]:
    """Return the verified ones of candidate pairs, which come in ranges, and how many were tried; each range's are kept in a file."""
    texts: Texts | None = None
    parts: list[dict[str, NDArray[Any]]] = []
    for number, pairs in enumerate(ranges):
        texts = texts or Texts.open(path)

        def make(pairs: Pairs = pairs, texts: Texts = texts) -> dict[str, NDArray[Any]]:
            found = list(work.engine.map(partial(verify, work.plan, path), batches(texts, pairs)))
            empty = _no_edges()
            joined = [np.concatenate(items) for items in zip((empty.pairs, empty.similarity, empty.verdict), *found, strict=True)]
            return {"pairs": joined[0], "similarity": joined[1], "verdict": joined[2], "tried": np.array(len(pairs))}

        parts.append(work.kept(f"{name}-{number:05d}", make))
    joined = {key: np.concatenate([part[key] for part in parts]) for key in ("pairs", "similarity", "verdict")}
    return Edges(joined["pairs"], joined["similarity"], joined["verdict"]), sum(int(part["tried"]) for part in parts)


def _added(edges: Edges, more: Edges) -> Edges:
    pairs = np.concatenate((edges.pairs, more.pairs))
    order = np.argsort(pairs)
    similarity, verdict = np.concatenate((edges.similarity, more.similarity)), np.concatenate((edges.verdict, more.verdict))
    return Edges(pairs[order], similarity[order], verdict[order])


def _again(work: _Work, path: Path, known: tuple[dict[str, NDArray[Any]], Nodes], edges: Edges, big: NDArray[np.int64]) -> Pairs:
    """Return pairs not yet tried among nodes of big buckets that are connected and have the same critical words: each with the best and with its neighbour.

    Of a big bucket only some pairs were tried, and those that can be duplicates need not be among them; here they meet, in linear number.
    """
    columns, nodes = known

    def make() -> dict[str, NDArray[Any]]:
        blocks = np.array_split(big, partition_count(len(big), each=4096))
        return {"sense": np.concatenate(list(work.engine.map(partial(senses, path), blocks)))}

    sense = work.kept("senses", make)["sense"]
    label = components(len(nodes.first), *unpacked(edges.pairs))[big]
    rank = np.empty(len(big), dtype=np.int64)
    rank[by_preference(columns, nodes.best[big])] = np.arange(len(big))
    order = np.lexsort((rank, sense, label))
    label, sense, ordered = label[order], sense[order], big[order]
    bounds = np.concatenate(([0], np.flatnonzero((label[1:] != label[:-1]) | (sense[1:] != sense[:-1])) + 1, [len(ordered)]))
    pairs, _ = bucket_pairs(ordered, bounds)
    return np.setdiff1d(pairs, edges.pairs, assume_unique=True)


def _decided(work: _Work, columns: dict[str, NDArray[Any]], nodes: Nodes, edges: Edges, tried: int) -> Duplicates:
    reasons = drops(columns, nodes, edges)
    one, other = unpacked(edges.pairs)
    before = components(len(nodes.first), one, other)
    left, right = same_question(columns, nodes)
    label = components(len(nodes.first), np.concatenate((one, left)), np.concatenate((other, right)))
    joined = len(np.unique(before)) - len(np.unique(label))
    clusters, several, inside = clusters_of(columns, nodes, label)
    counts = {
        "exact": int(np.count_nonzero(reasons.kind == EXACT)),
        "near": int(np.count_nonzero(reasons.kind == NEAR_COPY)),
        "guarded": int(np.count_nonzero(edges.verdict == GUARDED)),
        "conflicts": int(np.count_nonzero(edges.verdict == CONFLICT)) + joined,
        "related": int(np.count_nonzero(edges.verdict == RELATED)),
        "short": int(np.count_nonzero(columns["short"])),
        "empty": int(np.count_nonzero(columns["empty"])),
        "candidates": tried,
        "clusters": several,
        "clustered_rows": inside,
    }
    queue = work.folder / "conflicts.jsonl"
    lines = list(conflict_lines(columns, nodes, edges, reasons, clusters))
    write_atomically(queue, b"".join(lines))
    counts["arbitrations"] = len(lines)
    return Duplicates(reasons, clusters, counts, nodes.of, edges, queue)
