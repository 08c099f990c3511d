"""What is asked of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metier.training.planning.decide import Aims
from metier.training.planning.hardware import Machine

__all__ = ["Ask"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the plan.

    `items` are validation items a family for the prompting question (0: not asked), `shots` the solved examples shown, `target` the share of
    right answers that would do. `prices` are per hour, by a machine's name (`here` is this one). Nothing is measured unless `measure`.
    """

    aims: Aims
    others: tuple[Machine, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)
    items: int = 40
    shots: int = 4
    target: float = 0.8
    measure: bool = True
    seed: int = 0
