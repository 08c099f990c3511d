"""The output head at labelled positions only: loss, and log-probabilities of given tokens.

Hidden states are gathered to a contiguous [labels, hidden] matrix before they meet the head. That saves the head's work at
all other positions, and avoids a trap of torch 2.13 on the CPU: a frozen bf16 weight applied to a non-contiguous 3-D slice
is copied whole for every row of the batch.

The vocabulary is walked slice by slice, and a slice's weights serve the logits and the gradient while they are in the
processor's cache: no matrix of size [labels, vocabulary] ever exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import linear

from metier.models.filling import with_filler

__all__ = ["ROWS_AT_ONCE", "label_loss", "label_losses", "next_logits", "slice_size", "token_log_probabilities"]

ROWS_AT_ONCE = 1024
"""Labelled positions per block: more would not make the products quicker, only the buffers larger."""

_SLICE = 4096
"""Vocabulary entries at a time: weights of 4,096 x 640 in bf16 take 5 MiB, logits of 512 rows 4 MiB in bf16, 8 MiB in fp32."""

_SLICE_ON_ACCELERATOR = 65_536
"""There, fewer and larger kernels are quicker, and caches are small against either."""

_TOGETHER = 8
"""Rows of one product when the next tokens of a batch are chosen."""

_TINY = 1e-30


def slice_size(*, accelerator: bool) -> int:
    """Return how many vocabulary entries are multiplied at a time on a processor or on an accelerator."""
    return _SLICE_ON_ACCELERATOR if accelerator else _SLICE


def _capped(logits: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return torch.tanh(logits / softcap) * softcap if softcap is not None else logits


def _slices(hidden: torch.Tensor, head: torch.Tensor, softcap: float | None) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield for each slice of the vocabulary its logits [rows, slice] in fp32, the same memory in the head's format, its weights.

    Both buffers are used again for the next slice.
    """
    size = min(slice_size(accelerator=hidden.device.type != "cpu"), len(head))
    product = hidden.new_empty(len(hidden) * size)
    exact = torch.empty(len(hidden) * size, dtype=torch.float32, device=hidden.device)
    for first in range(0, len(head), size):
        weights = head[first : first + size]
        shape = (len(hidden), len(weights))
        rough, scores = product[: shape[0] * shape[1]].view(shape), exact[: shape[0] * shape[1]].view(shape)
        scores.copy_(torch.mm(hidden, weights.t(), out=rough))
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        yield scores, rough, weights


class _LabelLosses(torch.autograd.Function):
    """Cross-entropy at labelled positions over a head; losses and hidden gradient in one pass.

    With l the logits and y the label, exp(l) is summed over the vocabulary, and so are the head's weights weighted by it:
    the sum's logarithm less l_y is the loss, the quotient of the two less the label's own weights the gradient. Nothing is
    kept for the backward pass but that gradient. A head that is trained is walked once more for its own.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, softcap: float | None) -> torch.Tensor:
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            states, wanted = hidden[rows], labels[rows]
            found, slope = _loss_and_slope(with_filler(states), head, with_filler(wanted), softcap, wanted=gradient is not None)
            losses[rows] = found[: len(states)]
            if gradient is not None and slope is not None:
                gradient[rows] = slope[: len(states)]
        trained = (hidden, head, labels, losses) if head.requires_grad else (None, None, None, None)
        ctx.save_for_backward(gradient, *trained)
        ctx.softcap = softcap
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, hidden, head, labels, losses = ctx.saved_tensors
        (weights,) = gradients
        for_hidden = None if gradient is None else gradient * weights[:, None].to(gradient.dtype)
        for_head = None if head is None else _head_slope(hidden, head, labels, weights, losses, ctx.softcap)
        return for_hidden, for_head, None, None


def _loss_and_slope(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, softcap: float | None, *, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the losses [rows] in fp32 and, if it is wanted, their gradient in the hidden states [rows, hidden] in fp32."""
    own = head[labels].float()
    # The label's own term of the sum is exp of this very number.
    chosen = _own_logits(hidden, own, softcap)
    shift = torch.zeros_like(chosen)
    total, pull = _weigh(hidden, head, None, softcap, wanted=wanted)
    if not ((total > _TINY) & (total < 1 / _TINY)).all():
        # Exponentials near the ends of fp32 are taken against the largest logit instead, found in a pass of its own.
        shift = torch.stack([scores.amax(dim=1) for scores, _, _ in _slices(hidden, head, softcap)]).amax(dim=0)
        total, pull = _weigh(hidden, head, shift, softcap, wanted=wanted)
    losses = total.log() + shift - chosen
    if pull is None:
        return losses, None
    if softcap is not None:
        own *= (1 - (chosen / softcap).square())[:, None]
    return losses, pull.div_(total[:, None]).sub_(own)


def _head_slope(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, losses: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    """Return the gradient of the weighted losses in the head's weights, in their format: (p - one at the label)^T (weight * hidden).

    A label's own probability is exp(-loss), so the sum over the vocabulary needs no second walk.
    """
    total = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
    for start in range(0, len(labels), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        states, wanted = hidden[rows], labels[rows]
        normaliser = losses[rows] + _own_logits(states, head[wanted].float(), softcap)
        weighted = states * weights[rows, None].to(states.dtype)
        first = 0
        for scores, rough, part in _slices(states, head, softcap):
            slope = None if softcap is None else 1 - (scores / softcap).square()
            scores.sub_(normaliser[:, None]).exp_()
            inside = ((wanted >= first) & (wanted < first + len(part))).nonzero()[:, 0]
            scores[inside, wanted[inside] - first] -= 1
            rough.copy_(scores if slope is None else scores.mul_(slope))
            total[first : first + len(part)] += torch.mm(rough.t(), weighted)
            first += len(part)
    return total.to(head.dtype)


def _own_logits(hidden: torch.Tensor, own: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Return each row's logit [rows] of its own label, whose weights are `own`; rounded as the products are."""
    return _capped((hidden.float() * own).sum(dim=1).to(hidden.dtype).float(), softcap)


def _weigh(
    hidden: torch.Tensor, head: torch.Tensor, shift: torch.Tensor | None, softcap: float | None, *, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the sum over the vocabulary of e = exp(logit - shift) [rows], and that of the head's weights times e [rows, hidden]."""
    total = torch.zeros(len(hidden), dtype=torch.float32, device=hidden.device)
    pull = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device) if wanted else None
    part = torch.empty_like(hidden)
    for scores, rough, weights in _slices(hidden, head, softcap):
        slope = None if softcap is None or pull is None else 1 - (scores / softcap).square_()
        if shift is not None:
            scores.sub_(shift[:, None])
        total += scores.exp_().sum(dim=1)
        if pull is not None:
            rough.copy_(scores if slope is None else scores.mul_(slope))
            pull += torch.mm(rough, weights, out=part)
    return total, pull


def label_losses(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the cross-entropy [labels] in nats, fp32; hidden [labels, hidden], head [vocabulary, hidden], labels [labels]."""
    losses: torch.Tensor = _LabelLosses.apply(hidden, head, labels, softcap)  # type: ignore[no-untyped-call]
    return losses


def label_loss(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the sum of weights * cross-entropy in nats; hidden [labels, hidden], head [vocabulary, hidden], labels and weights [labels]."""
    return (label_losses(hidden, head, labels, softcap) * weights).sum()


@torch.no_grad()
def token_log_probabilities(hidden: torch.Tensor, head: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the log-probability (nats, fp32) of `labels[i]` given the hidden state `hidden[rows[i]]`.

    Several labels may be asked of one hidden state; the head is multiplied once for each state that is asked.
    """
    asked, place = torch.unique(rows, return_inverse=True)
    found = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(asked), ROWS_AT_ONCE):
        some = asked[start : start + ROWS_AT_ONCE]
        states = with_filler(hidden[some])
        inside = ((place >= start) & (place < start + len(some))).nonzero()[:, 0]
        within, wanted = place[inside] - start, labels[inside]
        normaliser = torch.full((len(states),), float("-inf"), device=hidden.device)
        first = 0
        for scores, _, weights in _slices(states, head, softcap):
            here = (wanted >= first) & (wanted < first + len(weights))
            found[inside[here]] = scores[within[here], wanted[here] - first]
            normaliser = torch.logaddexp(normaliser, scores.logsumexp(dim=1))
            first += len(weights)
        found[inside] -= normaliser[within]
    return found


@torch.no_grad()
def next_logits(hidden: torch.Tensor, head: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the logits [rows, vocabulary] in fp32 that follow hidden states [rows, hidden]."""
    if hidden.device.type == "cpu" and head.dtype == torch.float32 and len(hidden) > 1:
        return _capped(_few_rows(hidden, head), softcap)
    return _capped(linear(hidden.contiguous(), head), softcap).float()


def _few_rows(hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Return the product of a few rows with a large fp32 head, slice by slice, the head on the left.

    The BLAS otherwise packs the head anew in every step, which takes longer than the product: 187 ms against 59 for 8 rows and
    262,144 x 640 on two AVX2 cores. At most eight rows go at a time: up to there a row gets the same bits whoever stands beside it.
    """
    found = hidden.new_empty(len(hidden), len(head))
    for first in range(0, len(head), _SLICE):
        weights = head[first : first + _SLICE]
        for row in range(0, len(hidden), _TOGETHER):
            found[row : row + _TOGETHER, first : first + _SLICE] = torch.mm(weights, hidden[row : row + _TOGETHER].t()).t()
    return found
