"""AdaLoRA: low-rank updates whose ranks are shared out while they are trained.

Zhang et al. 2023, arXiv 2303.10512. An update is B diag(e) A. From time to time the importance of every direction of every layer is compared,
and the least important ones get e = 0, until as many are left as the budget allows (section 3.3, equations 7 to 12). B and A are kept near
orthogonal by a penalty (equation 4). What is saved is a plain LoRA: e is multiplied into B and dead directions are left out, so each layer has
a rank of its own, and some layers have none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metier.models.lora import PREFIX, LoraLinear, attach, product_distance, set_enabled
from metier.models.lorafile import lora_config
from metier.models.methods.interface import Shape

__all__ = ["AdaptiveRanks", "attach_adaptive"]

_SMOOTHING = 0.85
"""Both running means of the importance (section 4.1 of the paper)."""

_ORTHOGONALITY = 0.1
"""Weight of the penalty (table 11 of the paper has .1 to .5)."""

_START = 1.5
"""Ranks begin at so many times the budget (section 4.1)."""

_WARM, _FINAL = 0.1, 0.3
"""Shares of the steps before the first direction is given up, and after the last."""

_EVERY = 10
"""Steps from one choice of directions to the next, fewer in short trainings."""


class AdaptiveRanks:
    """Low-rank adapters that share out their ranks; see `Tuned`."""

    virtual = 0

    def __init__(self, model: nn.Module, shape: Shape) -> None:
        self._model = model
        self._shape = shape
        self._layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
        self._budget = shape.rank * len(self._layers)
        self._mean = {name: torch.zeros(parameter.shape) for name, parameter in self._parameters()}
        self._doubt = {name: torch.zeros(parameter.shape) for name, parameter in self._parameters()}

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{name}.{part}", parameter)
            for name, layer in self._layers.items()
            for part, parameter in (("a", layer.lora_a), ("b", layer.lora_b), ("e", layer.directions))
            if parameter is not None
        ]

    # What the training loop calls.

    def penalty(self) -> torch.Tensor:
        """Return how far A and B are from orthogonal, weighted."""
        total = torch.zeros(())
        for layer in self._layers.values():
            for gram in (layer.lora_a @ layer.lora_a.t(), layer.lora_b.t() @ layer.lora_b):
                total = total + (gram - torch.eye(len(gram), device=gram.device)).square().sum()
        return _ORTHOGONALITY * total / len(self._layers)

    @torch.no_grad()
    def watch(self) -> None:
        """Take the gradients of a step into the running means of sensitivity |w g| and of its doubt."""
        for name, parameter in self._parameters():
            if parameter.grad is None:
                continue
            sensitivity = (parameter * parameter.grad).abs()
            mean = self._mean[name].mul_(_SMOOTHING).add_(sensitivity, alpha=1 - _SMOOTHING)
            self._doubt[name].mul_(_SMOOTHING).add_((sensitivity - mean).abs(), alpha=1 - _SMOOTHING)

    @torch.no_grad()
    def settle(self, step: int, total: int) -> None:
        """After optimiser step `step` of `total` (from 1): give up the directions that are least important, where it is time to."""
        first, last = round(total * _WARM), round(total * (1 - _FINAL))
        if step < first or (step < last and (step - first) % max(1, min(_EVERY, (last - first) // 5)) != 0):
            return
        begin = sum(len(layer.lora_a) for layer in self._layers.values())
        left = max(0.0, 1 - (step - first) / max(1, last - first))
        budget = round(self._budget + (begin - self._budget) * left**3)
        scores = torch.cat([self._importance(name) for name in self._layers])
        keep = torch.zeros_like(scores, dtype=torch.bool)
        keep[scores.topk(min(budget, len(scores))).indices] = True
        start = 0
        for layer in self._layers.values():
            assert layer.directions is not None
            layer.directions.mul_(keep[start : start + len(layer.directions)])
            start += len(layer.directions)

    def _importance(self, name: str) -> torch.Tensor:
        score = {part: self._mean[f"{name}.{part}"] * self._doubt[f"{name}.{part}"] for part in "abe"}
        return score["e"] + score["a"].mean(dim=1) + score["b"].mean(dim=0)

    def kept(self) -> dict[str, torch.Tensor]:
        """Return the tensors beside the parameters that a checkpoint has to hold, on the model's device; they are changed in place."""
        for name, parameter in self._parameters():
            self._mean[name], self._doubt[name] = self._mean[name].to(parameter.device), self._doubt[name].to(parameter.device)
        return {f"{kind}.{name}": tensor for kind, table in (("mean", self._mean), ("doubt", self._doubt)) for name, tensor in table.items()}

    # What `Tuned` asks for.

    def _alive(self) -> dict[str, torch.Tensor]:
        return {name: (layer.directions != 0).nonzero()[:, 0] for name, layer in self._layers.items() if layer.directions is not None}

    def state(self) -> dict[str, torch.Tensor]:
        """Return A and B of every layer that kept a direction."""
        found = {}
        for name, alive in self._alive().items():
            layer = self._layers[name]
            if len(alive) and layer.directions is not None:
                found[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach()[alive]
                found[f"{PREFIX}{name}.lora_B.weight"] = (layer.lora_b * layer.directions).detach()[:, alive]
        return found

    def config(self) -> dict[str, Any]:
        """Return PEFT's configuration of a LoRA with a rank for each layer."""
        ranks = {name: len(alive) for name, alive in self._alive().items() if len(alive)}
        return lora_config(self._model, rank=self._shape.rank, alpha=self._shape.alpha, dropout=self._shape.dropout, ranks=ranks)

    def distance(self) -> torch.Tensor:
        """Return the squared distance of all adapted weights from the base's: ||scale B A||^2 = scale^2 tr(A A^T B^T B)."""
        return product_distance(self._model)

    def enable(self, on: bool) -> None:
        """Switch all low-rank adapters on or off."""
        set_enabled(self._model, on)


def attach_adaptive(model: nn.Module, method: str, shape: Shape, seed: int) -> AdaptiveRanks:
    """Freeze a model and put low-rank adapters of one and a half times the rank beside its layers. Raises ModelError as `attach` does."""
    del method
    names = attach(model, rank=max(shape.rank + 1, round(shape.rank * _START)), alpha=shape.alpha, dropout=shape.dropout, targets=shape.targets, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, LoraLinear)
        layer.scale = shape.alpha / shape.rank
        # The paper starts both sides at random and e at zero; rows of A and columns of B of about unit length are near orthogonal.
        for parameter in (layer.lora_a, layer.lora_b):
            drawn = torch.randn(parameter.shape, generator=generator)
            length = drawn.norm(dim=1 if parameter is layer.lora_a else 0, keepdim=True)
            parameter.data.copy_(drawn / length)
        layer.directions = nn.Parameter(torch.zeros(len(layer.lora_a)))
    return AdaptiveRanks(model, shape)
