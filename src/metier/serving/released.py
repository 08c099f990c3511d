"""What may be served, and what was served: the engine's own names for both. The room that makes releases is not known here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metier.errors import Fault, InputError, ModelError
from metier.models import Base
from metier.models.labels import LABELS_FILE

__all__ = ["Executed", "Served", "check_base", "check_names"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Served:
    """A release as serving needs it. `files` are the SHA-256 of its adapter's files as the release signs them."""

    name: str
    adapter: Path
    adapter_digest: str
    release_digest: str
    base_digest: str
    files: Mapping[str, str]

    @property
    def labels(self) -> bool:
        """Whether it labels texts, rather than writing answers."""
        return LABELS_FILE in self.files


@dataclass(frozen=True, slots=True)
class Executed:
    """What stands in one place of the engine: taken from what was loaded there, never from a request."""

    name: str
    release: str
    adapter: str
    base: str
    weights: str
    """SHA-256 of the bytes that the tensors were read from."""

    def as_facts(self) -> dict[str, str]:
        """Return what the log says of it: the name, and the digests of release, adapter, loaded bytes and base model."""
        digests = {"release_digest": self.release, "adapter_digest": self.adapter, "weights": self.weights, "base_digest": self.base}
        return {"name": self.name, **digests}


def check_base(release: Served, base: Base) -> None:
    """Raise ModelError for a release of another base model than this one."""
    if release.base_digest != base.digest:
        what = f"the release {release.name} belongs to another base model ({release.base_digest[:12]}) than {base.name} ({base.digest[:12]})"
        raise ModelError(f"{what}\n    -> serve it with the base model it was trained on")


def check_names(releases: Sequence[Served]) -> None:
    """Raise InputError for names that cannot be asked for over HTTP without doubt, or that stand twice."""
    faults = []
    if not releases:
        faults.append(Fault("there is no release to serve", remedy="make one with: metier release"))
    names = [release.name for release in releases]
    for name in dict.fromkeys(names):
        if not _NAME.fullmatch(name):
            faults.append(Fault(f"{name!r} cannot be the name of a release", remedy="use at most 64 letters, digits, . - and _"))
        if names.count(name) > 1:
            faults.append(Fault(f"two releases are called {name}", remedy="serve one of them: --release"))
    if faults:
        raise InputError(faults)
