"""How the weights of a training lie over its processes: whole in each of them (here), or shared out (see `metier.training.sharded`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from accelerate import Accelerator

__all__ = ["Distribution", "Replicated"]

_BUCKET = 1 << 23
"""Gradients that processes send to each other at once."""


class Distribution(Protocol):
    """What a training asks of the place where its weights are. Every process calls every method, in the same order."""

    collective: bool
    """Whether other processes have to take part where one reads or writes weights."""

    def call(self, model: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(model, *arguments)`, in which the model can be used as if its weights were here."""

    def turns(self, rows: int) -> Iterator[tuple[int, bool]]:
        """Yield the places of the rows that this process works on; False: only to keep others company, the row is another's."""

    def add_up(self, parameters: Sequence[torch.Tensor]) -> None:
        """Add up the gradients of all processes, each of which has those of its own rows."""

    def clip(self, parameters: Sequence[torch.Tensor], most: float) -> float:
        """Shorten the gradient to the norm `most` and return the norm that it had, over all parameters of all processes."""

    def sums(self, values: Sequence[torch.Tensor]) -> list[float]:
        """Return sums that were taken over what is here of the parameters as sums over all of them."""

    def here(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the part of a parameter or of its gradient that this process holds."""

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return all of a tensor; only the process that leads is sure to get it."""

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return what a process holds of a whole tensor that lies as the parameter `like` does."""

    def agreed(self, said: bool) -> bool:
        """Return what the process that leads says, where the processes have to do the same."""

    def rest(self, model: Any) -> None:
        """Let go of weights that are here only because they were just used."""

    def assemble(self, model: Any) -> None:
        """Make every trained weight whole at the process that leads: the training has ended, and the model is not called any more."""


class Replicated:
    """Every process has all weights and works on its own rows; see `Distribution`."""

    collective = False

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def call(self, model: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it."""
        return function(model, *arguments)

    def turns(self, rows: int) -> Iterator[tuple[int, bool]]:
        """Yield every n-th place."""
        return ((place, True) for place in range(self._accelerator.process_index, rows, self._accelerator.num_processes))

    def add_up(self, parameters: Sequence[torch.Tensor]) -> None:
        """Send gradients in buckets."""
        if self._accelerator.num_processes == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for together in _buckets(parameters):
            gradients = [parameter.grad for parameter in together if parameter.grad is not None]
            whole = self._accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="sum")
            for gradient, part in zip(gradients, whole.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def clip(self, parameters: Sequence[torch.Tensor], most: float) -> float:
        """Every process finds the same."""
        return float(torch.nn.utils.clip_grad_norm_(parameters, most))

    def sums(self, values: Sequence[torch.Tensor]) -> list[float]:
        """They are over all already."""
        return [float(value) for value in values]

    def here(self, tensor: torch.Tensor) -> torch.Tensor:
        """All of it."""
        return tensor

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """It is."""
        return tensor

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """All of it, where the parameter is."""
        return tensor.to(like.device)

    def agreed(self, said: bool) -> bool:
        """Nobody has to agree."""
        return said

    def rest(self, model: Any) -> None:
        """There is nothing to let go of."""

    def assemble(self, model: Any) -> None:
        """It is whole."""


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
