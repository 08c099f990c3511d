"""The output head at labelled positions only: loss, and log-probabilities of given tokens.

Hidden states are gathered to a contiguous [labels, hidden] matrix before they meet the head. That saves the head's work at
all other positions, and avoids a trap of torch 2.13 on the CPU: a frozen bf16 weight applied to a non-contiguous 3-D slice
is copied whole for every row of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

__all__ = ["ROWS_AT_ONCE", "label_loss", "next_logits", "token_log_probabilities"]

ROWS_AT_ONCE = 256
"""Labelled positions per block: logits of 256 x 262,144 in bf16 take 128 MiB, and the head's weights are read once a block."""


_ROWS_IN_CACHE = 8
"""Rows whose probabilities are worked out at a time in fp32: 8 x 262,144 take 8 MiB and stay in the processor's cache."""


def _logits(hidden: torch.Tensor, head: torch.Tensor, softcap: float | None) -> torch.Tensor:
    logits = linear(hidden, head)
    return torch.tanh(logits / softcap) * softcap if softcap is not None else logits


class _LabelLoss(torch.autograd.Function):
    """Weighted cross-entropy over a frozen head; loss and hidden gradient in one pass, block by block.

    The gradient of the loss in the hidden states is known as soon as the probabilities are, so nothing of size
    [labels, vocabulary] outlives its block and the head is never multiplied again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, softcap: float | None) -> torch.Tensor:
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        buffer = hidden.new_empty(min(ROWS_AT_ONCE, len(labels)), len(head))
        losses = []
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            logits = torch.mm(hidden[rows], head.t(), out=buffer[: len(labels[rows])])
            losses.append(_turn_to_gradient(logits, labels[rows], softcap))
            if gradient is not None:
                torch.mm(logits, head, out=gradient[rows])
        ctx.save_for_backward(gradient, weights)
        return (torch.cat(losses) * weights).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, weights = ctx.saved_tensors
        return (gradient * (gradients[0] * weights)[:, None].to(gradient.dtype), None, None, None, None)


def _turn_to_gradient(logits: torch.Tensor, labels: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Return the losses [rows] in fp32 and overwrite the logits [rows, vocabulary] with their gradient: p - 1{label}."""
    losses = torch.empty(len(labels), dtype=torch.float32, device=logits.device)
    exact = torch.empty(_ROWS_IN_CACHE, logits.shape[1], dtype=torch.float32, device=logits.device)
    for start in range(0, len(labels), _ROWS_IN_CACHE):
        rows = slice(start, start + _ROWS_IN_CACHE)
        scores = exact[: len(labels[rows])].copy_(logits[rows])
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        probabilities = torch.softmax(scores, dim=-1)
        places = labels[rows, None]
        chosen = probabilities.gather(1, places)
        losses[rows] = -chosen.log()[:, 0]
        if not torch.isfinite(losses[rows]).all():
            # A probability below 1e-38 has no logarithm in fp32; these rows take the longer way.
            losses[rows] = (scores.logsumexp(dim=-1, keepdim=True) - scores.gather(1, places))[:, 0]
        probabilities.scatter_(1, places, chosen - 1)
        if softcap is not None:
            probabilities.mul_(1 - (scores / softcap).square_())
        logits[rows] = probabilities
    return losses


def label_loss(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the sum of weights * cross-entropy in nats; hidden [labels, hidden], head [vocabulary, hidden], labels and weights [labels]."""
    loss: torch.Tensor = _LabelLoss.apply(hidden, head, labels, weights, softcap)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def token_log_probabilities(hidden: torch.Tensor, head: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the log-probability (nats, fp32) of `labels[i]` given the hidden state `hidden[rows[i]]`.

    Several labels may be asked of one hidden state; the head is multiplied once for each state that is asked.
    """
    asked, place = torch.unique(rows, return_inverse=True)
    found = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    buffer = hidden.new_empty(min(ROWS_AT_ONCE, len(asked)), len(head))
    for start in range(0, len(asked), ROWS_AT_ONCE):
        block = asked[start : start + ROWS_AT_ONCE]
        logits = torch.mm(hidden[block], head.t(), out=buffer[: len(block)])
        if softcap is not None:
            logits.div_(softcap).tanh_().mul_(softcap)
        normaliser = torch.cat([logits[at : at + _ROWS_IN_CACHE].float().logsumexp(dim=-1) for at in range(0, len(block), _ROWS_IN_CACHE)])
        inside = (place >= start) & (place < start + len(block))
        within = place[inside] - start
        found[inside] = logits[within, labels[inside]].float() - normaliser[within]
    return found


@torch.no_grad()
def next_logits(hidden: torch.Tensor, head: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the logits [rows, vocabulary] in fp32 that follow hidden states [rows, hidden]."""
    return _logits(hidden.contiguous(), head, softcap).float()
