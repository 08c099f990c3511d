"""Lineage: from a served answer to the adapter, the run, the dataset, the record and the bytes of its source, and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from metier.artifacts import MANIFEST, Artifact, Kind
from metier.digest import digest_file
from metier.errors import InputError
from metier.store import Store

__all__ = ["Answer", "Find", "Node", "Trace", "trace"]

_KINDS: tuple[Kind, ...] = ("dataset", "run", "adapter", "evaluation", "evidence", "decision", "approval", "release")
_SHORTEST = 4
_SHOWN = 12
_HEX = re.compile(r"[0-9a-f]+")
_COLUMNS = ["record_id", "source_uri", "source_digest", "source_position", "parents", "transforms", "split"]


class Answer(Protocol):
    """One served answer as the log of events keeps it."""

    @property
    def index(self) -> int:
        """Number of its entry in the log."""

    @property
    def actor(self) -> str:
        """Who asked."""

    @property
    def time(self) -> str:
        """When."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """`id` of the answer, `adapter_digest` and `release_digest` of what gave it."""


Find = Callable[..., Iterable[Answer]]
"""Returns the answers whose facts have the values given: find(id=...), find(adapter_digest=...)."""


@dataclass(frozen=True, slots=True)
class Node:
    """One thing on the way, and what lies behind it."""

    kind: str
    id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Node, ...] = ()

    def as_facts(self) -> dict[str, Any]:
        """Return the tree in its JSON form."""
        return {"kind": self.kind, "id": self.id, "facts": dict(self.facts), "children": [child.as_facts() for child in self.children]}


@dataclass(frozen=True, slots=True)
class Trace:
    """What a thing comes from (`back`) and what came of it (`forward`)."""

    kind: str
    id: str
    back: Node
    forward: Node

    def as_facts(self) -> dict[str, Any]:
        """Return both trees in their JSON form."""
        return {"kind": self.kind, "id": self.id, "back": self.back.as_facts(), "forward": self.forward.as_facts()}


def trace(store: Store, query: str, *, find: Find | None = None, records: int = 5) -> Trace:
    """Return what `query` comes from and what came of it.

    `query` is the id of an answer, the beginning of an artefact's digest, of a record's id or of a source's SHA-256 (four characters
    and more), or the name of a source file. `find` looks into the log; `records` are shown of each dataset. Raises InputError with
    all candidates if several things begin so, or none does.
    """
    graph = _Graph(store, find, records)
    candidates = list(dict.fromkeys(graph.candidates(query)))
    if not candidates:
        raise InputError(
            f"nothing in this project is called {query!r}\n    -> give an answer's id, a digest, a record's id or a source file; metier releases lists releases"
        )
    if len(candidates) > 1:
        lines = [f"    {kind} {name}" for kind, name in candidates[:_SHOWN]]
        rest = [f"    and {len(candidates) - _SHOWN} more"] if len(candidates) > _SHOWN else []
        raise InputError("\n".join([f"{query!r} can be several things:", *lines, *rest, "    -> give more characters"]))
    kind, name = candidates[0]
    return Trace(kind, name, graph.back(kind, name), graph.forward(kind, name))


class _Graph:
    """The artefacts of a store with their links, the lineage of its datasets, and the answers in the log."""

    def __init__(self, store: Store, find: Find | None, records: int) -> None:
        self.root = store.root.parent
        self.find = find
        self.records = records
        found = [store.open(kind, path.parent.name) for kind in _KINDS for path in sorted((store.root / "artifacts" / kind).glob(f"*/{MANIFEST}"))]
        self.artifacts: dict[str, Artifact] = {item.digest: item for item in found}
        self.datasets = [item for item in found if item.kind == "dataset"]

    def candidates(self, query: str) -> Iterator[tuple[str, str]]:
        """Yield (kind, id) of everything that `query` can mean."""
        for answer in self._answers(id=query):
            yield "answer", str(answer.facts["id"])
        for dataset in self.datasets:
            for entry in dataset.facts["register"]:
                if entry["uri"] == query or (len(query) >= _SHORTEST and entry["sha256"].startswith(query)):
                    yield "source", entry["uri"]
        if len(query) < _SHORTEST or not _HEX.fullmatch(query):
            return
        for digest, item in self.artifacts.items():
            if digest.startswith(query):
                yield item.kind, digest
        for dataset in self.datasets:
            for row in _rows(dataset, prefix=query):
                yield "record", row["record_id"]

    def _answers(self, **facts: str) -> list[Answer]:
        """The answers with these facts, each once: a streamed one is on record twice, when it began and when it ended."""
        found = [] if self.find is None else self.find(**facts)
        return list({str(answer.facts.get("id", answer.index)): answer for answer in found}.values())

    def back(self, kind: str, name: str) -> Node:
        """Return the tree of what a thing comes from."""
        if kind == "answer":
            return self._answer_back(name)
        if kind == "record":
            return Node("record", name, {}, tuple(self._origins(name)))
        if kind == "source":
            return Node("source", name, self._source(name))
        return self._made_from(self.artifacts[name], set())

    def forward(self, kind: str, name: str) -> Node:
        """Return the tree of what came of a thing."""
        if kind == "answer":
            return Node("answer", name)
        if kind == "record":
            return Node("record", name, {}, tuple(self._became(item, set(), {"split": split}) for item, split in self._holding(name)))
        if kind == "source":
            holding = [item for item in self.datasets if any(entry["uri"] == name for entry in item.facts["register"])]
            return Node("source", name, {}, tuple(self._became(item, set(), self._share(item, name)) for item in holding))
        return self._became(self.artifacts[name], set(), {})

    def _answer_back(self, name: str) -> Node:
        (answer,) = self._answers(id=name)[:1]
        seen: set[str] = set()
        children = []
        for key in ("release_digest", "adapter_digest"):
            digest = str(answer.facts.get(key) or "")
            if digest in self.artifacts and digest not in seen:
                children.append(self._made_from(self.artifacts[digest], seen))
            elif digest and digest not in seen:
                children.append(Node(key.removesuffix("_digest"), digest, {"note": "not in this project's store"}))
        return Node("answer", name, {"entry": answer.index, "actor": answer.actor, "time": answer.time}, tuple(children))

    def _made_from(self, item: Artifact, seen: set[str]) -> Node:
        seen.add(item.digest)
        children: list[Node] = []
        for parent in item.parents:
            if parent in seen:
                continue
            if parent in self.artifacts:
                children.append(self._made_from(self.artifacts[parent], seen))
            elif "base" in item.facts and item.facts["base"]["digest"] == parent and f"base {parent}" not in seen:
                seen.add(f"base {parent}")
                children.append(Node("base", parent, item.facts["base"]))
            elif (item.facts.get("teacher") or {}).get("digest") == parent:
                children.append(Node("teacher", parent, item.facts["teacher"]))
        if item.kind == "dataset":
            children += self._contents(item)
        if item.kind == "run":
            children += [_elsewhere(companion) for companion in item.facts.get("companions", ())]
        return Node(item.kind, item.digest, _said(item), tuple(children))

    def _contents(self, dataset: Artifact) -> Iterator[Node]:
        counts = Counter(row["source_uri"] for row in _rows(dataset))
        for entry in dataset.facts["register"]:
            yield Node("source", entry["uri"], {"records": counts[entry["uri"]], **_stated(entry), "bytes_now": self._bytes_now(entry)})
        for row in _rows(dataset, limit=self.records):
            yield Node("record", row["record_id"], {"split": row["split"], **_place(row)})

    def _became(self, item: Artifact, seen: set[str], facts: Mapping[str, Any]) -> Node:
        seen.add(item.digest)
        children = [self._became(child, seen, {}) for child in self.artifacts.values() if item.digest in child.parents and child.digest not in seen]
        children += self._given(item)
        return Node(item.kind, item.digest, {**_said(item), **facts}, tuple(children))

    def _given(self, item: Artifact) -> Iterator[Node]:
        """The answers that an adapter or a release gave: under the release, and under the adapter only where there is none."""
        key = {"adapter": "adapter_digest", "release": "release_digest"}.get(item.kind)
        released = any(child.kind == "release" for child in self.artifacts.values() if item.digest in child.parents)
        answers = self._answers(**{key: item.digest}) if key is not None and not released else []
        if answers:
            shown = answers[max(0, len(answers) - self.records) :]
            nodes = (Node("answer", str(answer.facts.get("id", answer.index)), {"entry": answer.index, "time": answer.time}) for answer in shown)
            yield Node("answers", str(len(answers)), {}, tuple(nodes))

    def _holding(self, record: str) -> Iterator[tuple[Artifact, str]]:
        for dataset in self.datasets:
            for row in _rows(dataset, prefix=record):
                yield dataset, row["split"]

    def _origins(self, record: str) -> Iterator[Node]:
        for dataset, _ in self._holding(record):
            entries = {entry["uri"]: entry for entry in dataset.facts["register"]}
            for row in _rows(dataset, prefix=record):
                entry = entries.get(row["source_uri"])
                facts = _place(row) if entry is None else {**_place(row), **_stated(entry), "bytes_now": self._bytes_now(entry)}
                yield Node("source", str(row["source_uri"]), {**facts, "transforms": row["transforms"], "dataset": dataset.digest})

    def _source(self, uri: str) -> dict[str, Any]:
        for dataset in reversed(self.datasets):
            for entry in dataset.facts["register"]:
                if entry["uri"] == uri:
                    return {**_stated(entry), "rows": entry["rows"], "bytes_now": self._bytes_now(entry)}
        return {}

    def _share(self, dataset: Artifact, uri: str) -> dict[str, Any]:
        return {"records": sum(row["source_uri"] == uri for row in _rows(dataset))}

    def _bytes_now(self, entry: Mapping[str, Any]) -> str:
        path: Path = self.root / entry["uri"]
        try:
            return "unchanged" if digest_file(path) == entry["sha256"] else "changed since"
        except OSError:
            return "not there any more"


def _elsewhere(companion: Mapping[str, Any]) -> Node:
    """Return the node of a dataset that was trained along and lies in another project."""
    sources = (Node("source", entry["uri"], {**_stated(entry), "rows": entry["rows"]}) for entry in companion["sources"])
    facts = {"project": companion["project"], "examples": companion["examples"], "note": "trained along; its records are in that project"}
    return Node("companion", companion["dataset"], facts, tuple(sources))


def _stated(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"sha256": entry["sha256"], "licence": entry["licence"], "basis": entry["basis"]}


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"file": row["source_uri"], "position": row["source_position"], "sha256": row["source_digest"]}


def _said(item: Artifact) -> dict[str, Any]:
    """Return the few facts by which people know an artefact."""
    facts = item.facts
    wanted: dict[Kind, Sequence[str]] = {
        "dataset": ("records",),
        "run": ("steps", "final_loss"),
        "adapter": ("method", "rank"),
        "evidence": ("author",),
        "decision": ("verdict", "approved_by"),
        "approval": ("by", "time", "controls"),
        "release": ("name", "approved_by"),
    }
    return {name: facts[name] for name in wanted.get(item.kind, ()) if facts.get(name) is not None}


def _rows(dataset: Artifact, *, prefix: str | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows of a dataset's lineage: those whose record's id begins with `prefix`, the first `limit`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetFile(dataset.file("lineage.parquet")) as parquet:
        for batch in parquet.iter_batches(batch_size=65_536, columns=_COLUMNS):
            kept = batch if prefix is None else batch.filter(pc.starts_with(batch.column("record_id"), prefix))
            for row in kept.to_pylist():
                if limit is not None and count >= limit:
                    return
                count += 1
                yield row
