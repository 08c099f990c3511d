"""Gated LoRA: every layer's update has a gate that learns whether the update is needed; those that close are left out of what is saved.

A gate is a hard concrete variable (Louizos et al. 2018, arXiv 1712.01312, section 2.2, with their beta, gamma and zeta): stretched and clipped,
so that it can be exactly 0 or 1. The penalty is the expected share of open gates, which is L0 in expectation. What is saved is a plain LoRA of the
layers that stayed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from metier.errors import ModelError
from metier.models.lora import PREFIX, LoraLinear, attach, product_distance, set_enabled
from metier.models.lorafile import lora_config
from metier.models.methods.interface import Shape

__all__ = ["Gated", "attach_gated"]

_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1
_OPEN = 2.0
"""Gates begin open: the chance of being closed is 3 %."""

_HASTE = 100.0
"""How much faster a gate moves than the update's numbers: at usual rates it could not close within a short training."""


class Gate(nn.Module):
    """Whether an update counts: between 0 and 1, drawn while training and fixed else."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor(_OPEN / _HASTE))

    def forward(self) -> torch.Tensor:
        """Return the gate's value."""
        found = self.place * _HASTE
        if self.training:
            drawn = torch.rand((), device=found.device).clamp(1e-6, 1 - 1e-6)
            found = (torch.logit(drawn) + found) / _BETA
        return (torch.sigmoid(found) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)

    def chance(self) -> torch.Tensor:
        """Return the chance that it is not closed (equation 12 of the paper)."""
        return torch.sigmoid(self.place * _HASTE - _BETA * math.log(-_GAMMA / _ZETA))


class Gated:
    """Low-rank adapters with gates; see `Tuned` and `Watched`."""

    virtual = 0

    def __init__(self, model: nn.Module, shape: Shape) -> None:
        self._model, self._shape = model, shape
        self._layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}

    # What the training loop calls.

    def penalty(self) -> torch.Tensor:
        """Return the expected share of open gates, weighted."""
        chances = [layer.gate.chance() for layer in self._layers.values() if isinstance(layer.gate, Gate)]
        return self._shape.gate * torch.stack(chances).mean()

    def watch(self) -> None:
        """Nothing to look at: the gates have gradients of their own."""

    def settle(self, step: int, total: int) -> None:
        """Nothing to settle."""

    def kept(self) -> dict[str, torch.Tensor]:
        """Return nothing: the gates are parameters."""
        return {}

    # What `Tuned` asks for.

    @torch.no_grad()
    def _open(self) -> dict[str, float]:
        found = {}
        for name, layer in self._layers.items():
            assert isinstance(layer.gate, Gate)
            training = layer.gate.training
            value = float(layer.gate.eval()())
            layer.gate.train(training)
            if value > 0:
                found[name] = value
        if not found:
            raise ModelError("every gate closed, so nothing is left of the expert\n    -> lower training.adaptation.gate")
        return found

    def state(self) -> dict[str, torch.Tensor]:
        """Return A and B of every layer whose gate is open, the gate in B. Raises ModelError if none is."""
        found = {}
        for name, value in self._open().items():
            layer = self._layers[name]
            found[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach()
            found[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_b.detach() * value
        return found

    def config(self) -> dict[str, Any]:
        """Return PEFT's configuration of a LoRA on the layers that stayed."""
        ranks = {name: len(self._layers[name].lora_a) for name in self._open()}
        return lora_config(self._model, rank=self._shape.rank, alpha=self._shape.alpha, dropout=self._shape.dropout, ranks=ranks)

    def distance(self) -> torch.Tensor:
        """Return the squared distance of all adapted weights from the base's, as if every gate were open."""
        return product_distance(self._model)

    def enable(self, on: bool) -> None:
        """Switch all low-rank adapters on or off."""
        set_enabled(self._model, on)


def attach_gated(model: nn.Module, method: str, shape: Shape, seed: int) -> Gated:
    """Freeze a model and put gated low-rank adapters beside its layers. Raises ModelError as `metier.models.lora.attach` does."""
    del method
    names = attach(model, rank=shape.rank, alpha=shape.alpha, dropout=shape.dropout, targets=shape.targets, ranks=shape.ranks, seed=seed)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, LoraLinear)
        layer.gate = Gate().to(layer.lora_a.device).train(model.training)
    return Gated(model, shape)
