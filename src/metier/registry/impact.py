"""What a person or a file reached: which datasets hold their records, which runs, adapters and releases saw them, which answers were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metier.artifacts import MANIFEST, Artifact, Kind
from metier.registry.lineage import Find
from metier.store import Store

__all__ = ["Impact", "Reached", "impact"]

_KINDS: tuple[Kind, ...] = ("run", "adapter", "evaluation", "evidence", "decision", "approval", "release")
_SAW: tuple[Kind, ...] = ("run", "adapter", "release")
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Reached:
    """One dataset that holds records of the person or file, and what was made from it.

    `dropped` counts rows in its drop ledger: they were not taught, and their text is still there. `became` maps run, adapter and
    release to their digests. Records of the test split were asked in the evaluation and not taught.
    """

    dataset: str
    records: Mapping[str, int]
    examples: tuple[str, ...]
    dropped: int
    became: Mapping[str, tuple[str, ...]]
    answers: int
    elsewhere: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """What other projects made of a training together with it, by project: like `became`."""

    def as_facts(self) -> dict[str, Any]:
        """Return it in its JSON form."""
        became = {kind: list(digests) for kind, digests in self.became.items()}
        return {
            "dataset": self.dataset,
            "records": dict(self.records),
            "examples": list(self.examples),
            "dropped": self.dropped,
            "became": became,
            "answers": self.answers,
            "elsewhere": {name: {kind: list(digests) for kind, digests in became.items()} for name, became in self.elsewhere.items()},
        }


@dataclass(frozen=True, slots=True)
class Impact:
    """Everything that a person or a file reached in a project."""

    kind: str
    reached: tuple[Reached, ...] = field(default=())

    def as_facts(self) -> dict[str, Any]:
        """Return it in its JSON form."""
        return {"kind": self.kind, "reached": [item.as_facts() for item in self.reached]}


def impact(
    store: Store,
    *,
    subject: str | None = None,
    source: str | None = None,
    find: Find | None = None,
    companions: Mapping[str, Store] | None = None,
) -> Impact:
    """Return where the records of a `subject` (its pseudonym) or of a `source` (its file name as the register has it) went.

    Every finished dataset of the project is searched, replaced ones included: an adapter that was trained on one may still be
    served. `find` looks into the log of answers. Records that were made from others (variants, parts) are found through the
    source and subject that they inherit. In the stores of `companions`, by project, what was trained together with a dataset is found; answers
    that were given there are in their logs. Raises ValueError unless exactly one of the two is given.
    """
    if (subject is None) == (source is None):
        raise ValueError("name a subject or a source, one of the two")
    column, value = ("subject", subject) if subject is not None else ("source_uri", source)
    reached = []
    children = _children(store)
    others = {name: (list(_open(other, "run")), _children(other)) for name, other in (companions or {}).items()}
    for dataset in _open(store, "dataset"):
        ids, splits = _records(dataset, column, str(value))
        dropped = _dropped(dataset, column, str(value))
        if ids or dropped:
            became = _became(dataset.digest, children) if ids else {}
            answers = sum(_answers(find, digest) for digest in became.get("adapter", ()))
            made = {name: _along(dataset.digest, runs, theirs) for name, (runs, theirs) in others.items()} if ids else {}
            elsewhere = {name: found for name, found in made.items() if found}
            reached.append(Reached(dataset.digest, splits, tuple(ids[:_NAMED]), dropped, became, answers, elsewhere))
    return Impact("subject" if subject is not None else "source", tuple(reached))


def _answers(find: Find | None, adapter: str) -> int:
    """Count the answers of an adapter, each once: a streamed one is on record twice."""
    return 0 if find is None else len({str(item.facts.get("id", item.index)) for item in find(adapter_digest=adapter)})


def _open(store: Store, kind: Kind) -> Iterator[Artifact]:
    for path in sorted((store.root / "artifacts" / kind).glob(f"*/{MANIFEST}")):
        yield store.open(kind, path.parent.name)


def _children(store: Store) -> dict[str, list[Artifact]]:
    found: dict[str, list[Artifact]] = {}
    for kind in _KINDS:
        for item in _open(store, kind):
            for parent in item.parents:
                found.setdefault(parent, []).append(item)
    return found


def _along(dataset: str, runs: Sequence[Artifact], children: Mapping[str, Sequence[Artifact]]) -> dict[str, tuple[str, ...]]:
    """Return the runs of another project that a dataset was trained along in, and what became of them."""
    found: dict[str, set[str]] = {}
    for run in runs:
        if any(item["dataset"] == dataset for item in run.facts.get("companions", ())):
            for kind, digests in {"run": (run.digest,), **_became(run.digest, children)}.items():
                found.setdefault(kind, set()).update(digests)
    return {kind: tuple(sorted(digests)) for kind, digests in found.items()}


def _became(digest: str, children: Mapping[str, Sequence[Artifact]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {kind: [] for kind in _SAW}
    seen, waiting = {digest}, [digest]
    while waiting:
        for item in children.get(waiting.pop(), ()):
            if item.digest not in seen:
                seen.add(item.digest)
                waiting.append(item.digest)
                if item.kind in found:
                    found[item.kind].append(item.digest)
    return {kind: tuple(sorted(digests)) for kind, digests in found.items() if digests}


def _records(dataset: Artifact, column: str, value: str) -> tuple[list[str], dict[str, int]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ids: list[str] = []
    splits: Counter[str] = Counter()
    with pq.ParquetFile(dataset.file("lineage.parquet")) as parquet:
        for batch in parquet.iter_batches(batch_size=65_536, columns=["record_id", "split", column]):
            kept = batch.filter(pc.equal(batch.column(column), value))
            ids += kept.column("record_id").to_pylist()
            splits.update(kept.column("split").to_pylist())
    return ids, dict(sorted(splits.items()))


def _dropped(dataset: Artifact, column: str, value: str) -> int:
    """Count rows of the drop ledger. Malformed lines have no subject that could be read: they are found by their source alone."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetFile(dataset.file("drops.parquet")) as parquet:
        for batch in parquet.iter_batches(batch_size=8_192, columns=["source", "content"]):
            if column == "subject":
                hit = pc.match_substring(batch.column("content"), f'"subject": "{value}"')
            else:
                hit = pc.equal(pc.struct_field(batch.column("source"), "uri"), value)
            count += pc.sum(pc.fill_null(hit, False)).as_py() or 0
    return count
