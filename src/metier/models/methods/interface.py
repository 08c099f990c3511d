"""What a method gives once it is attached to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

__all__ = ["Shape", "Tuned", "Watched", "switched_off"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the trained part is; each method reads its own of these (see `metier.models.methods.names`)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | str = "all-linear"
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Ranks of single layers, by the end of their names; alpha is scaled with them."""
    layers: int = 2
    """Last layers that `partial` trains."""
    head: bool = False
    """Whether `partial` trains the output head too."""
    size: int = 64
    """Width of a bottleneck, or of the network that makes virtual tokens."""
    tokens: int = 20
    """Virtual tokens before each example."""
    gate: float = 0.05
    """Weight of the penalty on open gates."""


class Tuned(Protocol):
    """The trained part of a model: what is saved, and the switch to the base model and back."""

    virtual: int
    """Virtual tokens that stand before each example, with the ids -1, -2, ... in that order."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that an adapter file holds, under the names it has for them."""

    def config(self) -> dict[str, Any]:
        """Return what `adapter_config.json` says beside the base model's name."""

    def distance(self) -> torch.Tensor:
        """Return the squared distance of the trained part from its start: of the weights where it changes weights, else of its own numbers."""

    def enable(self, on: bool) -> None:
        """Switch the trained part on or off; off is the exact base model, where no virtual token stands before an example."""


@contextmanager
def switched_off(tuned: Tuned) -> Iterator[None]:
    """Let a model be the exact base model inside the block."""
    tuned.enable(False)
    try:
        yield
    finally:
        tuned.enable(True)


@runtime_checkable
class Watched(Tuned, Protocol):
    """A method that takes part in every step, as one does that shares out ranks or closes gates."""

    def penalty(self) -> torch.Tensor:
        """Return what is added to the loss of a step, whatever its examples."""

    def watch(self) -> None:
        """Look at the gradients, before the optimiser has used them."""

    def settle(self, step: int, total: int) -> None:
        """Change what has to be changed after optimiser step `step` of `total`, from 1."""

    def kept(self) -> dict[str, torch.Tensor]:
        """Return the tensors beside the parameters that a checkpoint has to hold; they are changed in place."""
