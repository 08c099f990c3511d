"""How far a model's next-token distributions are from those of a reference, at labelled positions, slice by slice of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

from metier.models.head import ROWS_AT_ONCE

__all__ = ["Side", "divergences"]

_SLICE = 4096
"""Vocabulary entries at a time; see `metier.models.head`."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its states [labels, hidden], its output head [vocabulary, hidden], and the bound of its logits, if it has one."""

    states: torch.Tensor
    head: torch.Tensor
    softcap: float | None = None


def _parts(size: int) -> Iterator[slice]:
    return (slice(first, min(first + _SLICE, size)) for first in range(0, size, _SLICE))


def _scores(side: Side, rows: slice, part: slice) -> torch.Tensor:
    found = linear(side.states[rows], side.head[part]).float()
    return found if side.softcap is None else torch.tanh(found / side.softcap) * side.softcap


def _normaliser(side: Side, rows: slice, size: int, temperature: float) -> torch.Tensor:
    total = torch.full((len(side.states[rows]),), float("-inf"), device=side.states.device)
    for part in _parts(size):
        total = torch.logaddexp(total, (_scores(side, rows, part) / temperature).logsumexp(dim=1))
    return total[:, None]


def _slopes(ours: Side, theirs: Side, rows: slice, size: int, temperature: float) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield for each slice of the vocabulary the terms of KL(theirs || ours) and their slope in our uncapped logits, both [rows, slice]."""
    our_sum, their_sum = (_normaliser(side, rows, size, temperature) for side in (ours, theirs))
    for part in _parts(size):
        scores = _scores(ours, rows, part)
        log_ours = scores / temperature - our_sum
        log_theirs = _scores(theirs, rows, part) / temperature - their_sum
        expected = log_theirs.exp()
        slope = (log_ours.exp() - expected) / temperature
        if ours.softcap is not None:
            slope *= 1 - (scores / ours.softcap).square()
        yield part, expected * (log_theirs - log_ours), slope


class _Divergences(torch.autograd.Function):
    """KL(reference || model) = sum p_ref (log p_ref - log p). Its gradient in the model's logits over the temperature is p - p_ref.

    The gradient in the states is found in the forward pass; a head that is trained is walked once more for its own.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, head: torch.Tensor, theirs: Side, softcap: float | None, temperature: float) -> torch.Tensor:
        ours, size = Side(states, head, softcap), min(len(head), len(theirs.head))
        found = torch.zeros(len(states), dtype=torch.float32, device=states.device)
        gradient = torch.zeros(states.shape, dtype=torch.float32, device=states.device)
        for start in range(0, len(states), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            for part, terms, slope in _slopes(ours, theirs, rows, size, temperature):
                found[rows] += terms.sum(dim=1)
                gradient[rows] += torch.mm(slope.to(head.dtype), head[part])
        ctx.save_for_backward(gradient.to(states.dtype), *((states, head) if head.requires_grad else ()))
        ctx.means = theirs, softcap, temperature
        # Rounding can leave a trifle below zero where both are the same.
        return found.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, *trained = ctx.saved_tensors
        (weights,) = gradients
        for_head = None
        if trained:
            states, head = trained
            theirs, softcap, temperature = ctx.means
            total = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
            for start in range(0, len(states), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                weighted = states[rows] * weights[rows, None].to(states.dtype)
                for part, _, slope in _slopes(Side(states, head, softcap), theirs, rows, min(len(head), len(theirs.head)), temperature):
                    total[part] += torch.mm(slope.to(states.dtype).t(), weighted)
            for_head = total.to(head.dtype)
        return gradient * weights[:, None].to(gradient.dtype), for_head, None, None, None


def divergences(model: Side, reference: Side, *, temperature: float = 1.0) -> torch.Tensor:
    """Return KL(reference || model) in nats, [labels] in fp32, of both distributions at a temperature.

    The two may have heads of their own; where one has more entries (padding of the vocabulary), those that both have count. The model's states
    get a gradient, and its head if it is trained.
    """
    found: torch.Tensor = _Divergences.apply(model.states, model.head, reference, model.softcap, temperature)  # type: ignore[no-untyped-call]
    return found
