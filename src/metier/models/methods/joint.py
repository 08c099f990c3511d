"""One low-rank update that several members train together, and beside it one of each member's own.

All of them lie in one A [S + n R, in] and one B [out, S + n R]: the S shared directions first, then R of each of the n members. A token uses the
shared ones and its member's, so a step reads rows that mix members. What one member gets is an ordinary adapter of rank S + R::

    scale (B_shared A_shared + B_own A_own) = scale [B_shared B_own] [A_shared; A_own]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from metier.errors import ModelError
from metier.models.lora import LoraLinear, adapter_state, attach, set_enabled
from metier.models.lorafile import lora_config
from metier.models.methods.interface import Shape
from metier.models.stack import Gate

__all__ = ["Joint", "attach_joint", "member_state"]

_SHARED = 0
"""Number of the shared part in the gate; member i is number i + 1."""


@dataclass(frozen=True, slots=True)
class _Owned:
    """The directions of one layer by whose they are; see `metier.models.lora.Columns`."""

    gate: Gate
    owners: tuple[int, ...]
    rank: int

    def mask(self, rows: torch.Tensor) -> torch.Tensor:
        """Return which of them each token uses."""
        return self.gate.wide(self.owners, rows)


class Joint:
    """Shared and own low-rank updates on a model; see `Tuned`."""

    virtual = 0

    def __init__(self, model: nn.Module, gate: Gate, config: Mapping[str, Any]) -> None:
        self._model, self._gate, self._config = model, gate, config

    def choose(self, members: Sequence[int], lengths: Sequence[int]) -> None:
        """Say for the next forward passes whose the examples of the packed row are: `lengths[i]` tokens of the member `members[i]`, from 0."""
        owner = torch.repeat_interleave(torch.tensor(members) + 1, torch.tensor(lengths))
        weights = torch.zeros(len(owner), self._gate.adapters)
        weights[:, _SHARED] = 1.0
        weights[torch.arange(len(owner)), owner] = 1.0
        self._gate.weigh(weights)

    def state(self) -> dict[str, torch.Tensor]:
        """Return A and B of every layer with the parts of all members; `member_state` takes one member's out of it."""
        return adapter_state(self._model)

    def config(self) -> dict[str, Any]:
        """Return PEFT's configuration of any member's adapter: they differ in their numbers alone."""
        return dict(self._config)

    def distance(self) -> torch.Tensor:
        """Raise ModelError: each member's weights have a distance of their own from the base's."""
        raise ModelError("training.objectives.start is not worked out for a joint training\n    -> use training.objectives.kl")

    def enable(self, on: bool) -> None:
        """Switch all updates on or off."""
        set_enabled(self._model, on)


def attach_joint(model: nn.Module, method: str, shape: Shape, *, own: int, members: int, seed: int) -> Joint:
    """Freeze a model and put a shared update, as `shape` says, and one of rank `own` for each member beside its layers.

    The scale of all of them is that of the shared one. Raises ModelError as `metier.models.lora.attach` does, and for an own rank that is
    larger than a layer.
    """
    stabilised, gate = method == "rslora", Gate(members + 1)
    names = attach(model, rank=shape.rank, alpha=shape.alpha, dropout=shape.dropout, targets=shape.targets, seed=seed, ranks=shape.ranks, stabilised=stabilised)
    # The shared part starts as it would alone; what the members' own start from is drawn behind it.
    generator = torch.Generator().manual_seed(seed + 1)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, LoraLinear)
        _widen(layer, name, gate, own, generator)
    rank = shape.rank + own
    alpha = shape.alpha * (math.sqrt(rank / shape.rank) if stabilised else rank / shape.rank)
    return Joint(model, gate, lora_config(model, rank=rank, alpha=alpha, dropout=shape.dropout, stabilised=stabilised))


def _widen(layer: LoraLinear, name: str, gate: Gate, own: int, generator: torch.Generator) -> None:
    """Put the members' own directions behind a layer's shared ones; B is zero, so it starts as the exact base layer."""
    members, inputs, outputs = gate.adapters - 1, layer.base.in_features, layer.base.out_features
    if own > min(inputs, outputs):
        raise ModelError(f"rank {own} is larger than the layer {name!r} ({inputs} x {outputs})\n    -> lower training.adaptation.joint.rank")
    shared, bound = len(layer.lora_a), 1 / math.sqrt(inputs)
    added = ((torch.rand(members * own, inputs, generator=generator) * 2 - 1) * bound).to(layer.lora_a)
    layer.lora_a = nn.Parameter(torch.cat([layer.lora_a.detach(), added]))
    layer.lora_b = nn.Parameter(layer.lora_b.new_zeros(outputs, shared + members * own))
    owners = (*(_SHARED for _ in range(shared)), *(number + 1 for number in range(members) for _ in range(own)))
    layer.columns = _Owned(gate, owners, shared + own)


def member_state(parts: Mapping[str, torch.Tensor], number: int, *, own: int, members: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a member's adapter, shared part and own one behind each other, out of the `state` of all `members`."""

    def of_member(tensor: torch.Tensor, dimension: int) -> torch.Tensor:
        shared = tensor.shape[dimension] - members * own
        return torch.cat([tensor.narrow(dimension, 0, shared), tensor.narrow(dimension, shared + number * own, own)], dim=dimension)

    return {name: of_member(tensor, 0 if name.endswith(".lora_A.weight") else 1) for name, tensor in parts.items()}
