"""Artefacts: what stages return. Frozen, named by the digest of their manifest, with their parents' digests.

An artefact is a folder in the store whose `manifest.json` was written last; a folder without one does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from metier.digest import digest_bytes, digest_of

__all__ = ["MANIFEST", "Artifact", "Kind", "manifest_digest", "planned_manifest"]

MANIFEST = "manifest.json"

Kind: TypeAlias = Literal["dataset", "run", "adapter", "evaluation", "evidence", "decision", "approval", "release"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One finished result: `facts` is what its stage says of it, `files` maps names to SHA-256 and size."""

    kind: Kind
    digest: str
    parents: tuple[str, ...]
    path: Path
    facts: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    def file(self, name: str) -> Path:
        """Return the path of one of the artefact's files. Raises KeyError if its manifest lists no such file."""
        if name not in self.files:
            raise KeyError(f"{self.kind} {self.digest[:12]} has no file {name!r}; it has {sorted(self.files)}")
        return self.path / name


def planned_manifest(kind: Kind, parents: Sequence[str], facts: Mapping[str, Any], files: Mapping[str, bytes | Mapping[str, Any]]) -> dict[str, Any]:
    """Return the manifest that an artefact will have, so that its digest can be put on record before it exists.

    `files` maps names to content, or to SHA-256 and size where those are known.
    """
    known = {name: {"sha256": digest_bytes(item), "bytes": len(item)} if isinstance(item, bytes) else dict(item) for name, item in files.items()}
    manifest: dict[str, Any] = {"metier": 1, "kind": kind, "parents": list(parents), "facts": dict(facts), "files": known}
    return {**manifest, "digest": manifest_digest(manifest)}


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a manifest: over everything in it but the digest itself."""
    return digest_of({key: value for key, value in manifest.items() if key != "digest"})
