"""Several low-rank adapters beside one frozen model, in one batch: a gate says which of them each token uses.

With all A matrices stacked to A [R, in], all scaled B matrices to B [out, R] and a gate g [tokens, R] that repeats each adapter's
weight over its ranks, y = x W^T + (g * (x A^T)) B^T. That is exact for any mix of adapters, of equal rank or not: two dense products
whatever the batch holds. A gate of 0 for every adapter would be the base model, which is why a gate is always set from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import linear

from metier.errors import ModelError
from metier.models.lora import AdapterWeights

__all__ = ["Gate", "StackedLinear", "stack"]


class Gate:
    """The adapters' weights of the tokens that pass through the model now."""

    def __init__(self, adapters: int) -> None:
        self.adapters = adapters
        self._weights: torch.Tensor | None = None
        self._wide: dict[tuple[int, ...], torch.Tensor] = {}

    def choose(self, chosen: Sequence[int]) -> None:
        """Let token i of the next forward pass use adapter `chosen[i]` and no other. Raises IndexError for an adapter that is not there."""
        weights = torch.zeros(len(chosen), self.adapters)
        weights[torch.arange(len(chosen)), torch.tensor(chosen)] = 1.0
        self.weigh(weights)

    def weigh(self, weights: torch.Tensor) -> None:
        """Set the weights [tokens, adapters] of the next forward pass."""
        self._weights = weights
        self._wide.clear()

    def wide(self, owners: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """Return the weights [tokens, R] where column j belongs to adapter `owners[j]`."""
        if self._weights is None:
            raise ModelError("no adapter was chosen for these tokens, and the base model answers nothing")
        if owners not in self._wide:
            self._wide[owners] = self._weights[:, list(owners)].to(like)
        return self._wide[owners]


@dataclass(frozen=True, slots=True)
class _Part:
    adapter: int
    a: torch.Tensor
    b: torch.Tensor


class StackedLinear(nn.Module):
    """A frozen linear layer with the low-rank updates of several adapters."""

    def __init__(self, base: nn.Linear, parts: Sequence[_Part], gate: Gate) -> None:
        super().__init__()
        self.base = base
        self._gate = gate
        self._owners = tuple(part.adapter for part in parts for _ in range(len(part.a)))
        self.a: torch.Tensor
        self.b: torch.Tensor
        self.register_buffer("a", torch.cat([part.a for part in parts]).contiguous(), persistent=False)
        self.register_buffer("b", torch.cat([part.b for part in parts], dim=1).t().contiguous(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [..., in_features]."""
        rows = x.reshape(-1, x.shape[-1])
        inner = linear(rows, self.a) * self._gate.wide(self._owners, rows)
        return linear(rows, self.base.weight, self.base.bias).addmm_(inner, self.b).reshape(*x.shape[:-1], -1)


def stack(model: nn.Module, adapters: Sequence[AdapterWeights]) -> Gate:
    """Put adapters that `read_adapter` has read beside a model's layers and return their gate; adapter i is number i of the gate."""
    gate = Gate(len(adapters))
    parts: dict[str, list[_Part]] = {}
    for number, adapter in enumerate(adapters):
        for full in sorted(name for name in adapter.tensors if name.endswith(".lora_A.weight")):
            name = full.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            layer: nn.Module = model.get_submodule(name)
            weight: torch.Tensor = layer.weight  # type: ignore[assignment]
            a = adapter.tensors[full].to(weight)
            b = adapter.tensors[full.replace(".lora_A.", ".lora_B.")].to(weight) * (adapter.alpha / adapter.rank)
            parts.setdefault(name, []).append(_Part(number, a, b))
    for name, found in parts.items():
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        setattr(parent, attribute, StackedLinear(getattr(parent, attribute), found, gate))
    return gate
