"""How much the base model's answers hang on each weight: the diagonal of the Fisher information, and a penalty on moving what matters.

Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3) adds 1/2 sum_i F_i (w_i - w0_i)^2. Here F is per learnt token: to
second order the penalty is the divergence from the base model in nats a token, on the examples that F was measured on. For a low-rank update
the moved weights are scale B A, made for one layer at a time; what the backward pass needs is of the size of A and B. Weights that are trained in
their own place have no base beside them: a copy of where they began is kept then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from metier.errors import ModelError
from metier.models.lora import LoraLinear
from metier.models.methods.weights import trained_layers
from metier.models.quantized import PackedLinear

__all__ = ["InPlace", "Moving", "consolidation", "measure_fisher", "moving_weights"]


class Moving(Protocol):
    """A weight of the base model that a method moves."""

    @property
    def own(self) -> torch.Tensor:
        """The weight that a gradient is taken of while nothing has moved."""

    def pulled(self, fisher: torch.Tensor) -> torch.Tensor:
        """Return sum F (w - w0)^2, to be differentiated."""


@dataclass(frozen=True, slots=True)
class _Updated:
    """The weight of a layer with a low-rank update beside it."""

    layer: LoraLinear

    @property
    def own(self) -> torch.Tensor:
        return self.layer.base.weight

    def pulled(self, fisher: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        a = layer.lora_a if layer.directions is None else layer.lora_a * layer.directions[:, None]
        found: torch.Tensor = _WeightedProduct.apply(a, layer.lora_b, fisher, layer.scale)  # type: ignore[no-untyped-call]
        return found


@dataclass(frozen=True, slots=True)
class _Trained:
    """A weight that is trained, and where it began."""

    own: torch.Tensor
    trained: torch.Tensor
    start: torch.Tensor

    def pulled(self, fisher: torch.Tensor) -> torch.Tensor:
        return (fisher.float() * (self.trained - self.start.float()).square()).sum()


class InPlace:
    """Copies of the weights of a model that is trained in its own place; what is fresh (`trained_whole`) began nowhere and is left out."""

    def __init__(self, model: Any) -> None:
        apart = tuple(f"{name}." for name in getattr(model, "trained_whole", ()))
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad and not name.startswith(apart)]
        self.weights = {name: _Trained(parameter, parameter, parameter.detach().clone()) for name, parameter in named}

    def distance(self) -> torch.Tensor:
        """Return the squared distance of all these weights from where they began."""
        return torch.stack([(weight.trained - weight.start).square().sum() for weight in self.weights.values()]).sum()


def moving_weights(model: nn.Module) -> dict[str, Moving]:
    """Return the base model's weights that a method moves, by name: those of layers with low-rank updates, and those that are trained beside the base's.

    Raises ModelError for methods that move none, or not by a known amount.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    if any(layer.magnitude is not None or isinstance(layer.base, PackedLinear) for layer in layers.values()):
        raise ModelError(_UNKNOWN)
    found: dict[str, Moving] = {f"{name}.weight": _Updated(layer) for name, layer in layers.items()}
    kept = {id(layer) for layer in trained_layers(model)}
    for name, module in model.named_modules():
        if id(module) in kept:
            for part, trained in module.named_parameters(recurse=False):
                key = part.removeprefix("trained_")
                base: torch.Tensor = getattr(module.base, key)
                found[f"{name}.{key}"] = _Trained(base, trained, base)
    if not found:
        raise ModelError(_UNKNOWN)
    return found


_UNKNOWN = "training.objectives.ewc is worked out where weights are moved: lora, rslora, adalora, full or partial\n    -> use training.objectives.kl"


def measure_fisher(
    weights: Mapping[str, Moving], rows: Sequence[Any], loss: Callable[[Any], tuple[torch.Tensor, int]], seen: Callable[[], None]
) -> dict[str, torch.Tensor]:
    """Return the diagonal of the Fisher information of the base weights, a learnt token, in bf16 (whose range is that of fp32).

    `loss(row)` returns the summed negative log-likelihood of one example and its learnt tokens (or labels), with the trained part switched off.
    F is sum over examples of the squared gradient / sum of tokens.
    """
    own = {name: weight.own for name, weight in weights.items()}
    before = {name: weight.requires_grad for name, weight in own.items()}
    total = {name: torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) for name, weight in own.items()}
    tokens = 0
    try:
        for weight in own.values():
            weight.requires_grad_(True)
        for row in rows:
            value, count = loss(row)
            gradients = torch.autograd.grad(value, list(own.values()), allow_unused=True)
            for name, gradient in zip(own, gradients, strict=True):
                if gradient is not None:
                    total[name].add_(gradient.float().square_())
            tokens += count
            seen()
    finally:
        for name, weight in own.items():
            weight.requires_grad_(before[name])
    return {name: (value / tokens).to(torch.bfloat16) for name, value in total.items()}


def consolidation(weights: Mapping[str, Moving], fisher: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return 1/2 sum_i F_i (w_i - w0_i)^2 over the weights, in nats a token, to be differentiated."""
    return torch.stack([weight.pulled(fisher[name]) for name, weight in weights.items()]).sum() / 2


class _WeightedProduct(torch.autograd.Function):
    """sum of F (scale B A)^2 and its gradients in A [rank, in] and B [out, rank]; the product itself is not kept."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, fisher: torch.Tensor, scale: float) -> torch.Tensor:
        moved = torch.mm(b, a).mul_(scale)
        pulled = moved * fisher
        ctx.save_for_backward(2 * scale * torch.mm(b.t(), pulled), 2 * scale * torch.mm(pulled, a.t()))
        return (pulled * moved).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        for_a, for_b = ctx.saved_tensors
        return for_a * gradients[0], for_b * gradients[0], None, None
