"""What ties a project's commands to its chain of evidence: the key that signs, and the log that keeps what was made and said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from metier.artifacts import Artifact
from metier.audit import Entry, Keys, Ledger, offline, open_project_ledger, project_places
from metier.compliance import LedgerFacts
from metier.events import Event, now
from metier.flow import author
from metier.project import Project

__all__ = ["Chain", "chain"]

_FRESH = LedgerFacts(0, "", intact=True)


class Chain:
    """A project's keys and log. Nothing is written, and no log is begun, before something has to be kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._settings = project.settings.audit
        self._places = project_places(project.root, self._settings)
        self._ledger: Ledger | None = None
        self._known: dict[tuple[str, ...], set[tuple[object, ...]]] = {}

    @property
    def keys(self) -> Keys:
        """The keys that sign; made when they are first used. A log that is there is opened first: it knows if they were lost."""
        if self._places.exist:
            self.ledger.head()
        return Keys.open(self._places.keys)

    @property
    def ledger(self) -> Ledger:
        """The log, opened, or begun if there is none."""
        if self._ledger is None:
            self._ledger = open_project_ledger(self._project.root, self._settings)
        return self._ledger

    def close(self) -> None:
        """Let go of the log."""
        if self._ledger is not None:
            self._ledger.close()

    def verified(self) -> LedgerFacts:
        """Check the whole log and say what was found; one that was not begun yet is sound and empty."""
        if not self._places.exist:
            return _FRESH
        found = offline.verify_log(self._places)
        return LedgerFacts(found.size, found.root or "", found.intact, found.fault)

    def keep(self, artifact: Artifact) -> None:
        """Put an artefact into the log, once."""
        facts = {"kind": artifact.kind, "digest": artifact.digest, "parents": list(artifact.parents)}
        self.once(Event("artifact", author(self._project), now(), facts), "digest")

    def once(self, event: Event, *names: str) -> None:
        """Put an event into the log unless one of its kind is there whose facts of these names are the same."""
        told = (event.kind, *names)
        if told not in self._known:
            found = self.ledger.find(kind=event.kind) if self._places.exist else ()
            self._known[told] = {tuple(entry.facts.get(name) for name in names) for entry in found}
        same = tuple(event.facts.get(name) for name in names)
        if same not in self._known[told]:
            self.ledger.record(event)
            self._known[told].add(same)

    def record(self, event: Event) -> int:
        """Put an event into the log."""
        return self.ledger.record(event)

    def answers(self, **facts: str) -> Iterator[Entry]:
        """Yield the served answers with these facts, in order."""
        if self._places.exist:
            yield from self.ledger.find(kind="prediction", **facts)

    def entries(self, digests: Iterable[str]) -> list[int]:
        """Return the numbers of the entries that are about artefacts, approvals and releases with these digests."""
        wanted = set(digests)
        found = [entry for kind in ("artifact", "approval", "release") for entry in self.ledger.find(kind=kind)]
        return [entry.index for entry in found if wanted & {str(entry.facts.get(name)) for name in ("digest", "approval", "release")}]


@contextmanager
def chain(project: Project) -> Iterator[Chain]:
    """Give the chain of a project and let go of its log afterwards."""
    made = Chain(project)
    try:
        yield made
    finally:
        made.close()
