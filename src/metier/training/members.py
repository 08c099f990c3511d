"""Members of a joint training: projects that train one shared low-rank part, and each its own, in one course of steps.

Everything here is in the order of the members' names, so a training is the same whichever of its members begins it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import wraps

import torch

from metier.artifacts import Artifact
from metier.digest import digest_of
from metier.errors import InputError
from metier.models import Base, Chat
from metier.models.methods import Joint
from metier.progress import Progress
from metier.store import Store
from metier.training.batches import Row
from metier.training.examples import Examples
from metier.training.objectives import Losses
from metier.training.reading import examples_of
from metier.training.settings import TrainingSettings
from metier.training.tokenised import FOLDER

__all__ = ["Member", "choosing", "examples_together"]


@dataclass(frozen=True, slots=True)
class Member:
    """One project of a joint training: its name, its dataset and the store that this is in."""

    project: str
    dataset: Artifact
    store: Store

    @property
    def digest(self) -> str:
        """What it is told from others by: its name and its dataset."""
        return digest_of([self.project, self.dataset.digest])


def examples_together(
    members: Sequence[Member], base: Base, chat: Chat, settings: TrainingSettings, progress: Progress, *, keep: bool = True
) -> tuple[Examples, Examples]:
    """Return the members' examples to learn from, and those to measure on, each member's behind the other's.

    What a member's dataset is tokenised into is kept in its own store if `keep` says so. Raises InputError, with the project's name, where one has nothing to
    learn from.
    """
    taught, checks = [], []
    for member in members:
        try:
            found = examples_of(member.dataset, base, chat, settings, kept=member.store.root / FOLDER if keep else None, progress=progress)
        except InputError as error:
            raise InputError(replace(fault, path=f"the project {member.project}") for fault in error.faults) from None
        taught.append(found[0])
        checks.append(found[1])
    return Examples.together(taught), Examples.together(checks)


def choosing(tuned: Joint, measure: Losses) -> Losses:
    """Return what measures a row of several members' examples, each with its own member's part."""

    @wraps(measure)
    def chosen(model: object, row: Row) -> torch.Tensor:
        tuned.choose(row.members, row.lengths)
        return measure(model, row)

    return chosen
