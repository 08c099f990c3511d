"""From verified pairs to decisions: who leaves for whom, what stays together, what people have to arbitrate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.digest import canonical_json
from metier.prepare.dedup.nodes import Nodes, by_preference
from metier.prepare.dedup.result import EXACT, NEAR_COPY, Edges, Reasons
from metier.prepare.dedup.shuffle import unpacked
from metier.prepare.dedup.verify import CONFLICT, NEAR
from metier.prepare.union import components

__all__ = ["clusters_of", "conflict_lines", "drops", "same_question"]

Columns = Mapping[str, NDArray[Any]]


def drops(columns: Columns, nodes: Nodes, edges: Edges) -> Reasons:
    """Return the rows that leave. Every one of them has a verified duplicate among those that stay."""
    rows = len(nodes.of)
    reasons = Reasons(np.zeros(rows, np.uint8), np.zeros(rows, np.float32), np.zeros(rows, np.uint32), columns["id"])
    best = nodes.best[nodes.of]
    copies = np.flatnonzero(best != np.arange(rows))
    reasons.kind[copies], reasons.rival[copies] = EXACT, best[copies]
    taken = edges.verdict == NEAR
    left, right = unpacked(edges.pairs[taken])
    if not len(left):
        return reasons
    ends, others = np.concatenate((left, right)), np.concatenate((right, left))
    similarity = np.concatenate((edges.similarity[taken],) * 2)
    order = np.argsort(ends, kind="stable")
    others, similarity = others[order], similarity[order]
    near, starts = np.unique(ends[order], return_index=True)
    bounds = np.append(starts, len(ends))
    kept = np.zeros(len(nodes.best), dtype=bool)
    for place in by_preference(columns, nodes.best[near]).tolist():
        first, last = bounds[place], bounds[place + 1]
        rivals = np.flatnonzero(kept[others[first:last]])
        if not len(rivals):
            kept[near[place]] = True
            continue
        closest = rivals[similarity[first:last][rivals] == similarity[first:last][rivals].max()]
        rival = nodes.best[others[first:last][closest]]
        number = nodes.best[near[place]]
        reasons.kind[number], reasons.similarity[number] = NEAR_COPY, similarity[first:last][closest[0]]
        reasons.rival[number] = rival[np.argmin(columns["id"][rival])]
    return reasons


def same_question(columns: Columns, nodes: Nodes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs that connect the nodes which ask the same; nodes that ask nothing are left out."""
    asked, answered = columns["asked"][nodes.first], columns["answered"][nodes.first]
    there = np.flatnonzero(asked.any(axis=1))
    order = there[np.lexsort((there, answered[there, 1], answered[there, 0], asked[there, 1], asked[there, 0]))]
    same = (asked[order][1:] == asked[order][:-1]).all(axis=1)
    return order[:-1][same], order[1:][same]


def clusters_of(columns: Columns, nodes: Nodes, label: NDArray[np.int64]) -> tuple[NDArray[np.uint32], int, int]:
    """Return for each row the row with the smallest id in its cluster, and how many clusters of several rows there are, with how many rows."""
    of = label[nodes.of]
    sizes = np.bincount(of, minlength=len(nodes.best)) if len(of) else np.zeros(0, dtype=np.int64)
    found = np.arange(len(of), dtype=np.uint32)
    several = np.flatnonzero(sizes[of] > 1)
    if not len(several):
        return found, 0, 0
    order = several[np.lexsort((columns["id"][several], of[several]))]
    groups, starts = np.unique(of[order], return_index=True)
    smallest = np.zeros(len(nodes.best), dtype=np.uint32)
    smallest[groups] = order[starts]
    found[several] = smallest[of[several]]
    return found, len(groups), len(several)


def conflict_lines(columns: Columns, nodes: Nodes, edges: Edges, reasons: Reasons, clusters: NDArray[np.uint32]) -> Iterator[bytes]:
    """Yield one JSON line for each group of rows that ask the same, word for word or nearly, and are answered differently.

    A line has the cluster, the digest of each record's question and answer, and the records' ids; texts are not in it.
    """
    left, right = same_question(columns, nodes)
    answered = columns["answered"]
    differ = (answered[nodes.first[left]] != answered[nodes.first[right]]).any(axis=1)
    label = components(len(nodes.best), left, right)
    disputed = np.unique(label[left[differ]])
    question = np.isin(label[left], disputed)
    one, other = edges.of(CONFLICT)
    label = components(len(nodes.best), np.concatenate((one, left[question])), np.concatenate((other, right[question])))
    nodes_in = np.unique(np.concatenate((one, other, left[question], right[question])))
    staying = nodes_in[reasons.kind[nodes.best[nodes_in]] == 0]
    order = staying[np.argsort(label[staying], kind="stable")]
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(label[order])) + 1, [len(order)]))
    groups = [nodes.best[order[first:last]] for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True) if last - first > 1]
    for rows in sorted((rows[np.argsort(columns["id"][rows])] for rows in groups), key=lambda rows: bytes(columns["id"][rows[0]])):
        records = [
            {"id": columns["id"][row].decode(), "question": _hex(columns["asked"][row]), "answer": _hex(columns["answered"][row])} for row in rows.tolist()
        ]
        yield canonical_json({"cluster": columns["id"][clusters[rows[0]]].decode(), "records": records}) + b"\n"


def _hex(words: NDArray[np.uint64]) -> str | None:
    return words.astype(">u8").tobytes().hex() if words.any() else None
