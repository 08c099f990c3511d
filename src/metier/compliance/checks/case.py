"""What checks look at: the artefacts of one expert, its base model, the pack, the settings and the state of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metier.artifacts import Artifact
from metier.compliance.measurement import LedgerFacts
from metier.compliance.settings import ComplianceSettings
from metier.digest import digest_of
from metier.packs.spec import Pack
from metier.progress import Progress
from metier.store import Store

__all__ = ["BaseFacts", "Case", "Subject", "lineage_rows", "some"]

_SHOWN = 5


class BaseFacts(Protocol):
    """What is known of a base model: name, digest over its files, licence."""

    @property
    def name(self) -> str:
        """Name in the project file."""

    @property
    def digest(self) -> str:
        """Digest over names and bytes of its files."""

    @property
    def licence(self) -> str:
        """Licence that its folder states, `unknown` if none."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The expert that is decided on: everything that the stages before returned for it."""

    dataset: Artifact
    run: Artifact
    adapter: Artifact
    evaluation: Artifact
    base: BaseFacts

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Dataset, run, adapter and evaluation."""
        return self.dataset, self.run, self.adapter, self.evaluation

    @property
    def companions(self) -> tuple[Mapping[str, Any], ...]:
        """What the run says of the projects that the expert was trained together with: their data has shaped it too."""
        return tuple(self.run.facts.get("companions", ()))

    @property
    def sources(self) -> list[Mapping[str, Any]]:
        """The files that the expert learnt from as the registers have them, those of companions with their project's name before their own."""
        theirs = [{**entry, "uri": f"{item['project']}: {entry['uri']}"} for item in self.companions for entry in item["sources"]]
        return [*self.dataset.facts["register"], *theirs]

    @property
    def digest(self) -> str:
        """Digest of everything in it."""
        return digest_of([item.digest for item in self.artifacts] + [self.base.name, self.base.digest, self.base.licence])

    def as_facts(self) -> dict[str, Any]:
        """Return the digests by kind, with name and licence of the base model."""
        return {**{item.kind: item.digest for item in self.artifacts}, "base": {name: getattr(self.base, name) for name in ("name", "digest", "licence")}}


@dataclass(frozen=True, slots=True)
class Case:
    """One subject with what it is judged by."""

    subject: Subject
    pack: Pack
    settings: ComplianceSettings
    ledger: LedgerFacts | None
    store: Store
    progress: Progress

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.store.root.parent


def lineage_rows(dataset: Artifact, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a dataset's lineage with the columns named; one that the file lacks is None everywhere."""
    import pyarrow.parquet as pq

    path = dataset.file("lineage.parquet")
    there = [name for name in columns if name in pq.read_schema(path).names]
    absent = dict.fromkeys(set(columns) - set(there))
    return [{**absent, **row} for row in pq.read_table(path, columns=there).to_pylist()]


def some(items: Sequence[str]) -> str:
    """Return the first of many names, and how many more there are."""
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
