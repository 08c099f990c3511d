"""What trials are compared by: the validation loss, or the score that `training.validation` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metier.training.scoring import Scoring, label_score
from metier.training.settings import TrainingSettings
from metier.training.sweep.settings import SweepSettings

__all__ = ["LOSS", "Quantity", "quantity_of"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is compared, and which way is better."""

    kind: Literal["loss", "score"]
    name: str
    unit: str = ""
    higher_is_better: bool = False

    @property
    def direction(self) -> str:
        """The direction of a search, as Optuna names it."""
        return "maximize" if self.higher_is_better else "minimize"

    def cost(self, value: float) -> float:
        """Return a value so that less is better."""
        return -value if self.higher_is_better else value

    def shown(self, value: float) -> str:
        """Return a value with its unit, for sentences."""
        return f"{value:.4f} {self.unit}".rstrip()


LOSS = Quantity("loss", "validation loss", "nats a learnt token")


def quantity_of(training: TrainingSettings, sweep: SweepSettings, scoring: Scoring | None) -> Quantity:
    """Return what the settings compare trials by; `scoring` is what `training.validation.tasks` names."""
    if sweep.by == "loss" or training.validation.by == "loss":
        return LOSS
    if scoring is not None:
        return Quantity("score", scoring.name, higher_is_better=scoring.higher_is_better)
    return Quantity("score", f"{label_score(training.task)} (validation records)", higher_is_better=True)
