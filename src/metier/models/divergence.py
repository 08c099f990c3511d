"""How far a model's next-token distributions have moved from those of a reference, at labelled positions, slice by slice of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import linear

from metier.models.head import ROWS_AT_ONCE

__all__ = ["divergences"]

_SLICE = 4096
"""Vocabulary entries at a time; see `metier.models.head`."""


def _logits(hidden: torch.Tensor, part: torch.Tensor, softcap: float | None) -> torch.Tensor:
    found = linear(hidden, part).float()
    return found if softcap is None else torch.tanh(found / softcap) * softcap


def _parts(head: torch.Tensor) -> Iterator[torch.Tensor]:
    return (head[first : first + _SLICE] for first in range(0, len(head), _SLICE))


def _normaliser(hidden: torch.Tensor, head: torch.Tensor, softcap: float | None) -> torch.Tensor:
    total = torch.full((len(hidden),), float("-inf"), device=hidden.device)
    for part in _parts(head):
        total = torch.logaddexp(total, _logits(hidden, part, softcap).logsumexp(dim=1))
    return total[:, None]


class _Divergences(torch.autograd.Function):
    """KL(reference || model) = sum p_ref (log p_ref - log p). Its gradient in the model's logits is p - p_ref."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, reference: torch.Tensor, head: torch.Tensor, softcap: float | None) -> torch.Tensor:
        found = torch.zeros(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            ours, theirs = hidden[rows], reference[rows]
            our_sum, their_sum = _normaliser(ours, head, softcap), _normaliser(theirs, head, softcap)
            for part in _parts(head):
                scores = _logits(ours, part, softcap)
                log_ours, log_theirs = scores - our_sum, _logits(theirs, part, softcap) - their_sum
                expected = log_theirs.exp()
                found[rows] += (expected * (log_theirs - log_ours)).sum(dim=1)
                slope = log_ours.exp() - expected
                if softcap is not None:
                    slope *= 1 - (scores / softcap).square()
                gradient[rows] += torch.mm(slope.to(head.dtype), part)
        ctx.save_for_backward(gradient.to(hidden.dtype))
        # Rounding can leave a trifle below zero where both are the same.
        return found.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0][:, None].to(gradient.dtype), None, None, None


def divergences(hidden: torch.Tensor, reference: torch.Tensor, head: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return KL(reference || model) in nats, [labels] in fp32.

    `hidden` and `reference` [labels, hidden] are the states of the model and of the reference at the same labels; both meet the same frozen
    `head` [vocabulary, hidden]. Only `hidden` gets a gradient.
    """
    found: torch.Tensor = _Divergences.apply(hidden, reference, head, softcap)  # type: ignore[no-untyped-call]
    return found
