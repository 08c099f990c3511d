"""Root-mean-square normalisation in few passes, for training with frozen norms.

The models' own norms make some twenty passes over the data, forward and backward, and torch's own kernel is no quicker on
the CPU. Here the forward pass is worked out in fp32 in place and the backward pass is written out (Zhang and Sennrich,
2019, arXiv 1910.07467): with r = 1 / rms(x) and g the gradient times the weight, dx = r g - x r^3 mean(g x).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["FrozenNorm", "normalise", "quicken"]


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        exact = x.to(torch.float32, copy=True)
        inverse = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return exact.mul_(inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        weighted = gradients[0] * weight
        along = (weighted * x).sum(dim=-1, keepdim=True, dtype=torch.float32)
        pull = inverse.pow(3) * along / x.shape[-1]
        return torch.addcmul(weighted.mul_(inverse.to(x.dtype)), x, pull.to(x.dtype), value=-1), None, None


class FrozenNorm(nn.Module):
    """A root-mean-square norm whose weight is not trained: `weight` is what is multiplied by, the model's own weight plus `offset`."""

    def __init__(self, weight: torch.Tensor, epsilon: float, *, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset
        self.register_buffer("weight", weight, persistent=False)
        self.weight: torch.Tensor
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x / rms(x) * weight over the last dimension."""
        normalised: torch.Tensor = _Normalise.apply(x, self.weight, self.epsilon)  # type: ignore[no-untyped-call]
        return normalised


def normalise(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return x / rms(x) over the last dimension, in fp32."""
    exact = x.float()
    return exact * exact.square().mean(dim=-1, keepdim=True).add(epsilon).rsqrt()


def quicken(model: nn.Module) -> int:
    """Replace a frozen model's root-mean-square norms by the quick ones and return how many were replaced.

    Families differ (some multiply by the weight, some by one plus the weight), so a norm is replaced only if on a probe it
    gives what its own code gives, to the precision of its format.
    """
    replaced = 0
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            quick = _equal_norm(norm) if type(norm).__name__.endswith("RMSNorm") else None
            if quick is not None:
                setattr(parent, name, quick)
                replaced += 1
    return replaced


@torch.no_grad()
def _equal_norm(norm: nn.Module) -> FrozenNorm | None:
    kept = getattr(norm, "weight", None)
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not isinstance(kept, torch.Tensor) or not isinstance(epsilon, float):
        return None
    weight = kept
    if weight.is_meta:
        # A plan counts on a model without values: what the norm's code does is tried with values of our own.
        norm = copy.deepcopy(norm).to_empty(device="cpu")
        weight = norm.get_parameter("weight")
        weight.copy_(torch.linspace(0.5, 1.5, weight.numel()))
    probe = torch.linspace(-3, 2, 4 * weight.numel(), device=weight.device).sin().view(4, -1).to(weight.dtype)
    expected = norm(probe).float()
    # Compared element by element: weights can hold outliers of a hundred times the others.
    tolerance = 4 * torch.finfo(weight.dtype).eps * expected.abs() + 1e-6
    for offset in (0.0, 1.0):
        quick = FrozenNorm((weight.detach().float() + offset).to(weight.dtype), epsilon, offset=offset)
        if bool(((quick(probe).float() - expected).abs() <= tolerance).all()):
            return quick.to(kept.device)
    return None
