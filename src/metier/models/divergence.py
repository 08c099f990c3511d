"""How far a model's next-token distributions are from those of a reference, at labelled positions, slice by slice of the vocabulary.

The vocabulary is walked twice: once for the sums, once for the gradient, each time with both sides' logits of a slice in buffers that the next
slice uses again. No matrix of labels by vocabulary exists, and no temporary is allocated a slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from metier.models.filling import with_filler

__all__ = ["Side", "divergences"]

_SLICE = 4096
"""Vocabulary entries at a time; see `metier.models.head`."""

_ROWS = 256
"""Labels at a time: the logits of both sides in fp32 take 8 MiB."""

_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its states [labels, hidden], its output head [vocabulary, hidden], and the bound of its logits, if it has one."""

    states: torch.Tensor
    head: torch.Tensor
    softcap: float | None = None


@dataclass(slots=True)
class _Sums:
    """Of a block of labels: what the logits are taken against, and the sums of the exponentials, for both sides [labels]."""

    shifts: tuple[torch.Tensor, torch.Tensor]
    totals: tuple[torch.Tensor, torch.Tensor]
    divergence: torch.Tensor


class _Walk:
    """Both sides' logits over a temperature for a block of labels, slice after slice, in buffers of its own."""

    def __init__(self, ours: Side, theirs: Side, temperature: float) -> None:
        self.sides, self.temperature = (ours, theirs), temperature
        self.size = min(len(ours.head), len(theirs.head))
        rows, width = min(_ROWS, len(ours.states)), min(_SLICE, self.size)
        device = ours.states.device
        self._rough = [side.states.new_empty(rows * width) for side in self.sides]
        self._exact = [torch.empty(rows * width, dtype=torch.float32, device=device) for _ in self.sides]
        self._spare = torch.empty(rows * width, dtype=torch.float32, device=device)

    def slices(self, rows: slice) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield (slice, our logits, their logits, a spare buffer, one in our head's format); all of them may be written over."""
        for first in range(0, self.size, _SLICE):
            part = slice(first, min(first + _SLICE, self.size))
            shape = (len(self.sides[0].states[rows]), part.stop - part.start)
            found = []
            for side, rough, exact in zip(self.sides, self._rough, self._exact, strict=True):
                scores = exact[: shape[0] * shape[1]].view(shape)
                scores.copy_(torch.mm(side.states[rows], side.head[part].t(), out=rough[: shape[0] * shape[1]].view(shape)))
                if side.softcap is not None:
                    scores.div_(side.softcap).tanh_().mul_(side.softcap)
                if self.temperature != 1:
                    scores.div_(self.temperature)
                found.append(scores)
            yield part, found[0], found[1], self._spare[: shape[0] * shape[1]].view(shape), self._rough[0][: shape[0] * shape[1]].view(shape)

    def sums(self, rows: slice) -> _Sums:
        """Return the sums over the vocabulary; exponentials near the ends of fp32 are taken against the largest logits, found in a pass of their own."""
        count = len(self.sides[0].states[rows])
        device = self.sides[0].states.device
        shifts = (torch.zeros(count, device=device), torch.zeros(count, device=device))
        found = self._summed(rows, shifts)
        if not all(((total > _TINY) & (total < 1 / _TINY)).all() for total in found.totals):
            largest = [(ours.amax(dim=1), theirs.amax(dim=1)) for _, ours, theirs, _, _ in self.slices(rows)]
            found = self._summed(rows, (torch.stack([one for one, _ in largest]).amax(dim=0), torch.stack([other for _, other in largest]).amax(dim=0)))
        return found

    def _summed(self, rows: slice, shifts: tuple[torch.Tensor, torch.Tensor]) -> _Sums:
        ours_total, theirs_total, apart = (torch.zeros_like(shifts[0]) for _ in range(3))
        for _, ours, theirs, spare, _ in self.slices(rows):
            torch.sub(theirs, ours, out=spare)
            theirs_total += theirs.sub_(shifts[1][:, None]).exp_().sum(dim=1)
            apart += spare.mul_(theirs).sum(dim=1)
            ours_total += ours.sub_(shifts[0][:, None]).exp_().sum(dim=1)
        normaliser = (ours_total.log() + shifts[0]) - (theirs_total.log() + shifts[1])
        # Rounding can leave a trifle below zero where both are the same.
        return _Sums(shifts, (ours_total, theirs_total), (apart / theirs_total + normaliser).clamp(min=0))

    def slopes(self, rows: slice, sums: _Sums) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield for each slice of the vocabulary the divergence's slope in our uncapped logits, in our head's format."""
        softcap = self.sides[0].softcap
        for part, ours, theirs, spare, rough in self.slices(rows):
            if softcap is not None:
                torch.mul(ours, self.temperature / softcap, out=spare)
                spare.square_().neg_().add_(1)
            ours.sub_(sums.shifts[0][:, None]).exp_().div_(sums.totals[0][:, None])
            ours.sub_(theirs.sub_(sums.shifts[1][:, None]).exp_().div_(sums.totals[1][:, None]))
            if softcap is not None:
                ours.mul_(spare)
            yield part, rough.copy_(ours.div_(self.temperature))


class _Divergences(torch.autograd.Function):
    """KL(reference || model) = sum p_ref (log p_ref - log p). Its gradient in the model's logits over the temperature is p - p_ref.

    The gradient in the states is found in the forward pass; a head that is trained is walked once more for its own.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, head: torch.Tensor, theirs: Side, softcap: float | None, temperature: float) -> torch.Tensor:
        walk = _Walk(Side(states, head, softcap), theirs, temperature)
        found = torch.zeros(len(states), dtype=torch.float32, device=states.device)
        gradient = torch.zeros(states.shape, dtype=torch.float32, device=states.device)
        pull = torch.empty_like(states)
        for start in range(0, len(states), _ROWS):
            rows = slice(start, start + _ROWS)
            sums = walk.sums(rows)
            found[rows] = sums.divergence
            for part, slope in walk.slopes(rows, sums):
                gradient[rows] += torch.mm(slope, head[part], out=pull[rows])
        ctx.save_for_backward(gradient.to(states.dtype), *((states, head) if head.requires_grad else ()))
        ctx.means = theirs, softcap, temperature
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, *trained = ctx.saved_tensors
        (weights,) = gradients
        for_head = None
        if trained:
            states, head = trained
            theirs, softcap, temperature = ctx.means
            walk = _Walk(Side(states, head, softcap), theirs, temperature)
            total = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
            for start in range(0, len(states), _ROWS):
                rows = slice(start, start + _ROWS)
                weighted = states[rows] * weights[rows, None].to(states.dtype)
                for part, slope in walk.slopes(rows, walk.sums(rows)):
                    total[part] += torch.mm(slope.t(), weighted)
            for_head = total.to(head.dtype)
        return gradient * weights[:, None].to(gradient.dtype), for_head, None, None, None


def divergences(model: Side, reference: Side, *, temperature: float = 1.0) -> torch.Tensor:
    """Return KL(reference || model) in nats, [labels] in fp32, of both distributions at a temperature.

    The two may have heads of their own; where one has more entries (padding of the vocabulary), those that both have count. The model's states
    get a gradient, and its head if it is trained.
    """
    theirs = replace(reference, states=with_filler(reference.states))
    found: torch.Tensor = _Divergences.apply(with_filler(model.states), model.head, theirs, model.softcap, temperature)  # type: ignore[no-untyped-call]
    return found[: len(model.states)]
