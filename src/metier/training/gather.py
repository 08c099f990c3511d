"""The gradients of one step: every learnt token weighs the same, whatever row, accumulation step or process it is in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from metier.training.batches import Row, row_at
from metier.training.examples import Examples
from metier.training.objectives import Objective

__all__ = ["Gather", "Gathered", "Summing", "to_device"]

_BUCKET = 1 << 23
"""Gradients that processes send to each other at once."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Mean loss of a step in nats a learnt token; tokens and labels read."""

    loss: float
    tokens: int
    labels: int


class Gather(Protocol):
    """What fills the gradients of a step."""

    def __call__(self, taught: Examples, rows: Sequence[Sequence[int]], step: int) -> Gathered:
        """Fill the parameters' gradients for packed rows of examples (by their places); `step` counts the whole training, from 0."""


class Summing:
    """Adds up the gradients of a step's rows, over the step's learnt tokens."""

    def __init__(self, model: Any, objective: Objective, parameters: Sequence[torch.Tensor], accelerator: Accelerator, *, seed: int) -> None:
        self._model, self._objective, self._parameters = model, objective, parameters
        self._accelerator, self._seed = accelerator, seed

    def __call__(self, taught: Examples, rows: Sequence[Sequence[int]], step: int) -> Gathered:
        """See `Gather`."""
        accelerator = self._accelerator
        packed = [row_at(taught, row) for row in rows]
        labels, loss = sum(len(row.labels) for row in packed), 0.0
        for place in range(accelerator.process_index, len(packed), accelerator.num_processes):
            # What chance does to a row depends on the row alone: not on where a run was interrupted, nor on how many processes there are.
            torch.manual_seed(_seed_of(self._seed, step, place))
            value = self._objective(self._model, to_device(packed[place], accelerator.device)) / labels
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach())
        return Gathered(self._over_processes(loss), sum(len(row.tokens) for row in packed), labels)

    def _over_processes(self, loss: float) -> float:
        """Add up gradients and loss over processes: each has its own rows, already divided by the step's learnt tokens."""
        accelerator = self._accelerator
        if accelerator.num_processes == 1:
            return loss
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for together in _buckets(self._parameters):
            gradients = [parameter.grad for parameter in together if parameter.grad is not None]
            whole = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="sum")
            for gradient, part in zip(gradients, whole.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        return float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), reduction="sum"))


def to_device(row: Row, device: torch.device) -> Row:
    """Return a row on a device."""
    if device.type == "cpu":
        return row
    kinds = None if row.kinds is None else row.kinds.to(device)
    return Row(row.tokens.to(device), row.positions.to(device), row.lengths, row.sources.to(device), row.labels.to(device), kinds, row.members)


def _seed_of(seed: int, step: int, row: int) -> int:
    return ((seed * 1_000_003 + step) * 1_000_003 + row) % 2**63


def _buckets(parameters: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Yield parameters in groups that are sent together: many small ones, or one large one."""
    bucket: list[torch.Tensor] = []
    for parameter in parameters:
        if bucket and (sum(item.numel() for item in bucket) + parameter.numel() > _BUCKET or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
