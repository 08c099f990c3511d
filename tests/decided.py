"""A small finished project with a decision, made once, and copies of it that tests may spoil."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cli.hives import write_project
from metier import flow
from metier.compliance import LedgerFacts
from metier.digest import digest_bytes
from metier.models import Base
from metier.project import Project, load_project

AUTHOR = "Ada Author"
OTHER = "Zhang Wei"
LEDGER = LedgerFacts(7, "00" * 32, intact=True)


@dataclass(frozen=True)
class Given:
    """A served answer as the log gives it back."""

    index: int
    facts: Mapping[str, Any]
    actor: str = "key-1"
    time: str = "2026-01-01T00:00:00Z"


@dataclass
class Log:
    answers: list[Given] = field(default_factory=list)

    def find(self, **facts: str) -> list[Given]:
        return [item for item in self.answers if all(item.facts.get(name) == value for name, value in facts.items())]


def intact() -> LedgerFacts:
    """What a log that verifies says."""
    return LEDGER


class Key:
    """A real Ed25519 key."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    @property
    def public_pem(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        return digest_bytes(self.public_pem)[:16]

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def make(folder: Path, base: Base) -> Path:
    """Walk the main path of the example project up to its decision."""
    write_project(folder, base.folder)
    file = folder / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8") + f"compliance: {{author: {AUTHOR}, thresholds: {{DG-01: 0.05}}}}\n", encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        flow.run(load_project(folder), ledger=intact)
    finally:
        torch.set_num_threads(threads)
    return folder


def copy(finished: Path, folder: Path) -> Project:
    """Return a copy of a finished project; the times of its artefacts stay."""
    shutil.copytree(finished, folder)
    return load_project(folder)
