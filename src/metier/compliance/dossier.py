"""The dossier of an expert: everything that its documents are written from."""

from __future__ import annotations

from dataclasses import dataclass

from metier.artifacts import Artifact
from metier.compliance.checks import Subject
from metier.packs.spec import Pack

__all__ = ["Dossier"]


@dataclass(frozen=True, slots=True)
class Dossier:
    """One expert with the evidence, the decision, the approvals and, where there is one, the release."""

    project: str
    pack: Pack
    subject: Subject
    evidence: Artifact
    decision: Artifact
    approvals: tuple[Artifact, ...] = ()
    release: Artifact | None = None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every artefact in it."""
        return (*self.subject.artifacts, self.evidence, self.decision, *self.approvals, *([self.release] if self.release else []))

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of every artefact in it."""
        return tuple(item.digest for item in self.artifacts)
