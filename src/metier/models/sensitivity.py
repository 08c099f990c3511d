"""Where an update of given size does most: ranks shared out over layers by the gradients of their weights on a sample.

A rank-r step along the gradient G of a layer takes the loss down by the sum of its r largest squared singular values, to first order (as LoRA-GA, Wang et al.
2024, arXiv 2407.05000, uses for the start, and GoRA, He et al. 2025, arXiv 2502.12171, for ranks). Directions of all layers are taken in the order of that
sum a parameter, until the budget is spent: that of the same rank everywhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["allocate", "layer_gradients"]

_LARGE = 1024
"""Layers of more rows and columns than this have their largest singular values found by a randomised method (Halko et al. 2011)."""


def layer_gradients(
    model: Any, names: Sequence[str], rows: Sequence[Any], loss: Callable[[Any], torch.Tensor], seen: Callable[[], None]
) -> dict[str, torch.Tensor]:
    """Return the gradients [out, in] of a model's layers, fp32, added up over rows; `loss(row)` is to be made small."""
    weights = [model.get_submodule(name).weight for name in names]
    before = [weight.requires_grad for weight in weights]
    total = [torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for row in rows:
            for place, gradient in enumerate(torch.autograd.grad(loss(row), weights, allow_unused=True)):
                if gradient is not None:
                    total[place].add_(gradient)
            seen()
    finally:
        for weight, was in zip(weights, before, strict=True):
            weight.requires_grad_(was)
    return dict(zip(names, total, strict=True))


def allocate(gradients: dict[str, torch.Tensor], *, rank: int, most: int) -> dict[str, int]:
    """Return a rank for each layer, at least 1 and at most `most`, of as many parameters together as `rank` everywhere.

    Of directions that do equally much, that of the layer that comes first by name is taken.
    """
    costs = {name: sum(gradient.shape) for name, gradient in gradients.items()}
    gains = {name: [float(value) ** 2 / costs[name] for value in _largest(gradient, most)] for name, gradient in gradients.items()}
    ranks = dict.fromkeys(gradients, 1)
    left = rank * sum(costs.values()) - sum(costs.values())
    waiting = [(-gain[1], name) for name, gain in gains.items() if len(gain) > 1]
    heapq.heapify(waiting)
    while waiting:
        _, name = heapq.heappop(waiting)
        if costs[name] > left:
            # A cheaper layer may still have room; this one has none, now or later.
            continue
        left -= costs[name]
        ranks[name] += 1
        if ranks[name] < len(gains[name]):
            heapq.heappush(waiting, (-gains[name][ranks[name]], name))
    return ranks


def _largest(gradient: torch.Tensor, count: int) -> list[float]:
    count = min(count, *gradient.shape)
    if min(gradient.shape) <= _LARGE:
        return [float(value) for value in torch.linalg.svdvals(gradient)[:count]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [float(value) for value in torch.svd_lowrank(gradient.cpu(), q=min(count + 8, *gradient.shape), niter=4)[1][:count]]
