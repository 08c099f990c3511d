"""Calls the stages of the main path: what a stage returned for the same inputs, settings, code and pack is not made again."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from metier.artifacts import Artifact
from metier.config import Settings, settings_digest
from metier.digest import digest_file, digest_of
from metier.errors import StoreError
from metier.progress import SILENT, Progress
from metier.store import Store

__all__ = ["Recorder", "Stages", "code_of", "ignore", "name_of"]

Recorder: TypeAlias = Callable[[Artifact], None]


def ignore(_: Artifact) -> None:
    """Record nothing."""


class Stages:
    """Calls stages: finds what is unchanged, keeps their workspaces, records what they return."""

    def __init__(self, store: Store, recorder: Recorder = ignore, progress: Progress = SILENT) -> None:
        self.store = store
        self.recorder = recorder
        self.progress = progress

    def __call__(self, function: Callable[..., Artifact | tuple[Artifact, ...]], *inputs: Any, **means: Any) -> tuple[Artifact, ...]:
        """Return the stage's artefacts, from the store if nothing that matters has changed.

        `inputs` take part in the stage's identity; `means` (such as the engine) only in how the work is done.
        """
        key = self.key(function, inputs)
        found = self.store.find(key)
        if found is None:
            found = self._work(function, inputs, means, key)
            self.store.remember(key, found)
        else:
            self.progress.say(f"{name_of(function)}: unchanged, {found[-1].kind} {found[-1].digest[:12]} is used again")
        for artifact in found:
            self.recorder(artifact)
        return found

    def key(self, function: Callable[..., Any], inputs: Sequence[Any]) -> str:
        """Return the identity of a stage's work: its code, and the digest of every input."""
        return digest_of({"stage": name_of(function), "code": code_of(name_of(function)), "inputs": [_identity(item) for item in inputs]})

    def _work(self, function: Callable[..., Any], inputs: Sequence[Any], means: dict[str, Any], key: str) -> tuple[Artifact, ...]:
        workspace = replace(self.store.workspace(key, self.progress), code=code_of(name_of(function)))
        try:
            returned = function(*inputs, workspace=workspace, **means)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(
                f"the disk that holds {self.store.root} is full; nothing half-written was kept\n    -> free some space and run the same command again"
            ) from error
        return returned if isinstance(returned, tuple) else (returned,)


def name_of(function: Callable[..., Any]) -> str:
    """Return the stage's room: the first package below metier that its function lives in."""
    room = function.__module__.split(".")[1]
    return "evaluation" if room == "flow" else room


def _identity(value: Any) -> Any:
    if isinstance(value, Settings):
        return settings_digest(value)
    if hasattr(value, "digest"):
        return value.digest
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple | list):
        return [_identity(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no identity: stages take artefacts, settings and plain values")


_STAGES = frozenset({"prepare", "training", "evaluation", "compliance", "registry", "serving", "deploy", "audit"})
_ABOVE = frozenset({"cli", "imports", "flow.py", "stages.py", "export.py", "project.py", "testing.py", "demo.py"})


@cache
def code_of(stage: str) -> str:
    """Return the digest of the code that a stage's work depends on: its own room and everything below the stages."""
    root = Path(__file__).parent
    rooms = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    files = [path.relative_to(root) for path in rooms]
    used = sorted(path for path in files if path.parts[0] not in _ABOVE and (path.parts[0] not in _STAGES or path.parts[0] == stage))
    return digest_of({path.as_posix(): digest_file(root / path) for path in used})
