"""Settings of private training, and what has to be stated because it must not be read off the records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from metier.config import Settings

__all__ = ["PrivacySettings"]

_NAMED = ("classification", "multi-label", "tagging")


class PrivacySettings(Settings):
    """Differentially private training (Abadi et al. 2016, arXiv 1607.00133): what one person's records can change is bounded."""

    epsilon: float | None = Field(default=None, gt=0)
    """The bound, for all steps together; None: training is not private."""
    delta: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    """Chance with which the bound need not hold; auto: 1e-5, or (number of persons)^-1.1 if that is less."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of one person's gradient."""
    units: int = Field(default=64, ge=1)
    """How many persons a step is expected to draw."""
    accountant: Literal["prv", "rdp"] = "prv"
    """How Opacus adds up the steps: numerically (Gopi et al. 2021) or by Renyi divergences (Mironov 2017), which is quicker and less tight."""
    labels: tuple[str, ...] = ()
    """classification, multi-label, tagging: all labels, in the order of the head's outputs; records with others are left out. The first stands for the base."""
    centre: float | None = None
    """regression: a number in the middle of those that are answered."""
    spread: float | None = Field(default=None, gt=0)
    """regression: how far they usually are from it."""

    def unfit(self, task: str) -> Iterator[str]:
        """Yield what of the stated labels and numbers is missing for a task, or is read by nothing."""
        named, numbers = self.epsilon is not None and task in _NAMED, self.epsilon is not None and task == "regression"
        if named and len(self.labels) < (2 if task == "classification" else 1):
            what = f"privacy.labels names too few labels of {task}"
            yield f"{what}: one that only a single person's records have would be seen in the head\n    -> state all of them"
        if len(set(self.labels)) < len(self.labels):
            yield "privacy.labels names a label twice\n    -> take one out"
        if numbers and (self.centre is None or self.spread is None):
            what = "mean and deviation of the records would be seen in what it answers"
            yield f"privacy.centre and privacy.spread are not stated: {what}\n    -> state both, from what is known beforehand"
        for name, read in (("labels", named), ("centre", numbers), ("spread", numbers)):
            if getattr(self, name) not in ((), None) and not read:
                where = "privacy.epsilon" if self.epsilon is None else f"the task {task}"
                yield f"privacy.{name} is read by nothing {'without' if self.epsilon is None else 'with'} {where}\n    -> take it out"
