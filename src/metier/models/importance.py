"""How much the base model's answers hang on each weight: the diagonal of the Fisher information, and a penalty on moving what matters.

Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3) adds 1/2 sum_i F_i (w_i - w0_i)^2. Here F is per learnt token: to
second order the penalty is the divergence from the base model in nats a token, on the examples that F was measured on. For a low-rank update
the moved weights are scale B A, made for one layer at a time; what the backward pass needs is of the size of A and B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from metier.errors import ModelError
from metier.models.lora import LoraLinear
from metier.models.quantized import PackedLinear

__all__ = ["adapted_layers", "consolidation", "measure_fisher"]


def adapted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose weights a method moves, by name: with low-rank updates or trained weights. Raises ModelError for other methods."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear) or hasattr(module, "trained_weight")}
    updates = [module for module in found.values() if isinstance(module, LoraLinear)]
    if not found or any(layer.magnitude is not None or isinstance(layer.base, PackedLinear) for layer in updates):
        raise ModelError(
            "training.objectives.ewc is worked out where weights are moved: lora, rslora, adalora, full or partial\n    -> use training.objectives.kl"
        )
    return found


def measure_fisher(
    layers: dict[str, nn.Module], rows: Sequence[Any], loss: Callable[[Any], tuple[torch.Tensor, int]], seen: Callable[[], None]
) -> dict[str, torch.Tensor]:
    """Return the diagonal of the Fisher information of the base weights, a learnt token, in bf16 (whose range is that of fp32).

    `loss(row)` returns the summed negative log-likelihood of one example and its learnt tokens, with the trained part switched off. F is
    sum over examples of the squared gradient / sum of tokens.
    """
    weights = {name: _own_weight(layer) for name, layer in layers.items()}
    before = {name: weight.requires_grad for name, weight in weights.items()}
    total = {name: torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) for name, weight in weights.items()}
    tokens = 0
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        for row in rows:
            value, count = loss(row)
            gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    total[name].add_(gradient.float().square_())
            tokens += count
            seen()
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(before[name])
    return {name: (value / tokens).to(torch.bfloat16) for name, value in total.items()}


def consolidation(layers: dict[str, nn.Module], fisher: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return 1/2 sum_i F_i (w_i - w0_i)^2 over the layers, in nats a token, to be differentiated."""
    total = torch.zeros((), device=next(next(iter(layers.values())).parameters()).device)
    for part in _moved(layers, fisher):
        total = total + part
    return total / 2


def _moved(layers: dict[str, nn.Module], fisher: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    for name, layer in layers.items():
        if isinstance(layer, LoraLinear):
            a = layer.lora_a if layer.directions is None else layer.lora_a * layer.directions[:, None]
            yield _WeightedProduct.apply(a, layer.lora_b, fisher[name], layer.scale)  # type: ignore[no-untyped-call]
        else:
            trained: torch.Tensor = layer.trained_weight  # type: ignore[assignment]
            yield (fisher[name].float() * (trained - _own_weight(layer).float()).square()).sum()


def _own_weight(layer: nn.Module) -> torch.Tensor:
    weight: torch.Tensor = layer.base.weight  # type: ignore[union-attr, assignment]
    return weight


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
