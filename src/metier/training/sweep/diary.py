"""What a sweep puts on record: that it began, what came of each trial, and how it ended. Digests, names and numbers; no text of a record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.artifacts import Artifact
from metier.config import settings_digest
from metier.events import Event, now
from metier.models import Base
from metier.training.sweep.space import Space
from metier.training.sweep.trials import Trial

__all__ = ["SAME", "Diary", "Keep"]

SAME = ("sweep", "what", "trial", "trials")
"""Facts by which two events of a sweep are the same one: a sweep that is gone on with says again what it has said."""

Keep = Callable[[Event], None]
"""Keeps an event unless the same one (see `SAME`) was kept before."""


@dataclass(frozen=True, slots=True)
class Diary:
    """Tells a log of one sweep. `key` is the sweep's identity, `actor` who answers for it."""

    key: str
    actor: str
    keep: Keep

    def begun(self, dataset: Artifact, base: Base, teacher: Base | None, space: Space, total: int) -> None:
        """Say that it begins, on what, and what is searched; once more where more trials are wanted than before."""
        about = {"dataset": dataset.digest, "base": base.digest, "settings": settings_digest(space.training), "searched": [part.key for part in space.parts]}
        about |= {} if teacher is None else {"teacher": teacher.digest}
        self._say("begun", about | {"compared": space.by.name, "trials": total})

    def trial(self, trial: Trial, space: Space) -> None:
        """Say what came of a trial: its settings by their digest, its state and what it is compared by."""
        value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
        about = {"trial": trial.number, "settings": settings_digest(space.settings(trial.values)), "state": trial.state}
        self._say("trial", about | {"compared": space.by.name, "value": value})

    def ended(self, trials: Sequence[Trial], recommended: int | None, result: str) -> None:
        """Say that it has ended, which trial is recommended, and the digest of the file with everything that was found."""
        states = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")}
        self._say("ended", {"trials": len(trials), **states, "recommended": recommended, "result": result})

    def _say(self, what: str, facts: Mapping[str, Any]) -> None:
        self.keep(Event("sweep", self.actor, now(), {"sweep": self.key, "what": what, **facts}))
