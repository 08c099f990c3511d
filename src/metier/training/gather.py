"""The gradients of one step: every learnt token weighs the same, whatever row, accumulation step or process it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from metier.training.batches import Row, row_at
from metier.training.distribution import Distribution, Replicated
from metier.training.examples import Examples
from metier.training.objectives import Objective

__all__ = ["Gather", "Gathered", "Summing", "to_device"]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Mean loss of a step in nats a learnt token; tokens and labels read; of a private step, units that added nothing, for their loss was no number."""

    loss: float
    tokens: int
    labels: int
    unusable: int = 0


class Gather(Protocol):
    """What fills the gradients of a step."""

    def __call__(self, taught: Examples, rows: Sequence[Sequence[int]], step: int) -> Gathered:
        """Fill the parameters' gradients for packed rows of examples (by their places); `step` counts the whole training, from 0."""


class Summing:
    """Adds up the gradients of a step's rows, over the step's learnt tokens."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        parameters: Sequence[torch.Tensor],
        accelerator: Accelerator,
        *,
        seed: int,
        weights: Distribution | None = None,
    ) -> None:
        """`weights` says how they lie over the processes; None: whole in each."""
        self._model, self._objective, self._parameters = model, objective, parameters
        self._accelerator, self._seed = accelerator, seed
        self._weights = Replicated(accelerator) if weights is None else weights

    def __call__(self, taught: Examples, rows: Sequence[Sequence[int]], step: int) -> Gathered:
        """See `Gather`."""
        accelerator = self._accelerator
        packed = [row_at(taught, row) for row in rows]
        labels, loss = sum(len(row.labels) for row in packed), 0.0
        for place, own in self._weights.turns(len(packed)):
            # What chance does to a row depends on the row alone: not on where a run was interrupted, nor on how many processes there are.
            torch.manual_seed(_seed_of(self._seed, step, place))
            value = self._weights.call(self._model, self._objective, to_device(packed[place], accelerator.device)) / labels
            value = value if own else value * 0
            value.backward()
            loss += float(value.detach())
        self._weights.add_up(self._parameters)
        if accelerator.num_processes > 1:
            # Each process has its own rows, already divided by the step's learnt tokens.
            loss = float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), reduction="sum"))
        return Gathered(loss, sum(row.read for row in packed), labels)


def to_device(row: Row, device: torch.device) -> Row:
    """Return a row on a device."""
    if device.type == "cpu":
        return row
    tensors: dict[str, Any] = {item.name: value.to(device) for item in fields(row) if isinstance(value := getattr(row, item.name), torch.Tensor)}
    return replace(row, **tensors)


def _seed_of(seed: int, step: int, row: int) -> int:
    return ((seed * 1_000_003 + step) * 1_000_003 + row) % 2**63
