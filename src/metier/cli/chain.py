"""What ties a project's commands to its chain of evidence: the key that signs, the log that keeps events, what the log says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from metier.compliance import LedgerFacts
from metier.digest import digest_bytes
from metier.events import Record
from metier.project import Project
from metier.registry.lineage import Find

__all__ = ["Chain", "ProjectKey", "chain"]


class ProjectKey:
    """An Ed25519 key from a secret of the project."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @property
    def public_pem(self) -> bytes:
        """The public half as PEM."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """SHA-256 of the public half's PEM."""
        return digest_bytes(self.public_pem)

    def sign(self, data: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(data)


@dataclass(frozen=True, slots=True)
class Chain:
    """A project's key and log, as far as it has them."""

    signer: ProjectKey
    ledger: Callable[[], LedgerFacts] | None = None
    record: Record | None = None
    find: Find | None = None


def chain(project: Project) -> Chain:
    """Return the key and the log of a project."""
    return Chain(ProjectKey(project.store.secret("release")))
