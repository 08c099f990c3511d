"""Several low-rank adapters beside one frozen model, in one batch: a gate says which of them each token uses.

With all A matrices stacked to A [R, in], all scaled B matrices to B [out, R] and a gate g [tokens, R] that repeats each adapter's
weight over its ranks, y = x W^T + (g * (x A^T)) B^T. That is exact for any mix of adapters, of equal rank or not: two dense products
whatever the batch holds. A gate of 0 for every adapter would be the base model, which is why a gate is always set from outside.

An adapter with trained magnitudes (DoRA) also multiplies each output by m / ||W + B A||, a vector of its own that is worked out once; the
gate picks that too, which is exact where a token uses one adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import linear, pad

from metier.errors import ModelError
from metier.models.lora import row_norms
from metier.models.lorafile import AdapterWeights

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
            # What fills a row up is no adapter's.
            self._wide[owners] = pad(self._weights[:, list(owners)].to(like), (0, 0, 0, len(like) - len(self._weights)))
        return self._wide[owners]


@dataclass(frozen=True, slots=True)
class _Part:
    adapter: int
    a: torch.Tensor
    b: torch.Tensor
    stretch: torch.Tensor | None


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
        self.stretch: torch.Tensor | None
        self.register_buffer("stretch", _stretches(parts, gate.adapters, base), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [..., in_features]."""
        rows = x.reshape(-1, x.shape[-1])
        inner = linear(rows, self.a) * self._gate.wide(self._owners, rows)
        if self.stretch is None:
            return linear(rows, self.base.weight, self.base.bias).addmm_(inner, self.b).reshape(*x.shape[:-1], -1)
        output = linear(rows, self.base.weight).addmm_(inner, self.b) * torch.mm(self._gate.wide(tuple(range(self._gate.adapters)), rows), self.stretch)
        return (output if self.base.bias is None else output + self.base.bias).reshape(*x.shape[:-1], -1)


def _stretches(parts: Sequence[_Part], adapters: int, base: nn.Linear) -> torch.Tensor | None:
    """Return what each adapter multiplies the outputs by, [adapters, out]; None where that is 1 for all of them."""
    if all(part.stretch is None for part in parts):
        return None
    found = base.weight.new_ones(adapters, base.out_features)
    for part in parts:
        if part.stretch is not None:
            found[part.adapter] = part.stretch.to(found)
    return found


def stack(model: nn.Module, adapters: Sequence[AdapterWeights]) -> Gate:
    """Put adapters that `read_adapter` has read beside a model's layers and return their gate; adapter i is number i of the gate."""
    gate = Gate(len(adapters))
    parts: dict[str, list[_Part]] = {}
    for number, adapter in enumerate(adapters):
        for full in sorted(name for name in adapter.tensors if name.endswith(".lora_A.weight")):
            name = full.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            layer: nn.Module = model.get_submodule(name)
            weight: torch.Tensor = layer.weight  # type: ignore[assignment]
            own, other = adapter.tensors[full].float(), adapter.tensors[full.replace(".lora_A.", ".lora_B.")].float() * adapter.scale(name)
            magnitude = adapter.tensors.get(full.replace(".lora_A.weight", ".lora_magnitude_vector"))
            stretch = None if magnitude is None else magnitude.float() / row_norms(weight, own, other)
            parts.setdefault(name, []).append(_Part(number, own.to(weight), other.to(weight), stretch))
    for name, found in parts.items():
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        setattr(parent, attribute, StackedLinear(getattr(parent, attribute), found, gate))
    return gate
