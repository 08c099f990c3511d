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

ROWS_AT_ONCE = 128
"""Labelled positions per block: logits of 128 x 262,144 in bf16 take 64 MiB, and the head's weights are read once a block."""


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
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            loss, block_gradient = _block(hidden[rows], head, labels[rows], weights[rows], softcap, gradient is not None)
            total += loss
            if gradient is not None and block_gradient is not None:
                gradient[rows] = block_gradient
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * gradients[0].to(gradient.dtype), None, None, None, None)


def _block(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, softcap: float | None, needs_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    logits = _logits(hidden, head, softcap)
    places = labels[:, None]
    chosen = logits.gather(1, places)[:, 0].float()
    probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
    top, top_at = logits.max(dim=-1)
    normaliser = top.float() - probabilities.gather(1, top_at[:, None])[:, 0].log()
    loss = ((normaliser - chosen) * weights).sum()
    if not needs_gradient:
        return loss, None
    probabilities.scatter_add_(1, places, torch.full_like(places, -1, dtype=torch.float32))
    probabilities *= weights[:, None]
    if softcap is not None:
        probabilities *= 1 - (logits.float() / softcap) ** 2
    return loss, probabilities.to(head.dtype) @ head


def label_loss(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the sum of weights * cross-entropy in nats; hidden [labels, hidden], head [vocabulary, hidden], labels and weights [labels]."""
    loss: torch.Tensor = _LabelLoss.apply(hidden, head, labels, weights, softcap)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def token_log_probabilities(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the log-probability (nats, fp32) of each label given its hidden state; shapes as in `label_loss`."""
    parts = []
    for start in range(0, len(labels), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        logits = _logits(hidden[rows], head, softcap).float()
        parts.append(logits.gather(1, labels[rows, None])[:, 0] - logits.logsumexp(dim=-1))
    return torch.cat(parts) if parts else torch.zeros(0)


@torch.no_grad()
def next_logits(hidden: torch.Tensor, head: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """Return the logits [rows, vocabulary] in fp32 that follow hidden states [rows, hidden]."""
    return _logits(hidden.contiguous(), head, softcap).float()
