"""What is minimised: functions of a model and a packed row. Objectives add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.functional import cross_entropy as cross_entropy_of

from metier.models.attention import Packed
from metier.models.head import label_loss
from metier.models.heads import Layout, label_scores
from metier.models.labels import Labelling
from metier.training.batches import Row

__all__ = ["Objective", "cross_entropy", "label_objective"]

Objective: TypeAlias = Callable[[Any, Row], torch.Tensor]
"""Returns the summed loss of a row, in nats; the loop divides by the learnt tokens of the whole step."""


def cross_entropy(model: Any, row: Row) -> torch.Tensor:
    """Return the negative log-likelihood of a row's labels, summed; `model` is a causal language model of transformers."""
    head = model.get_output_embeddings().weight
    states = model.get_decoder()(input_ids=row.tokens[None], position_ids=row.positions[None], plan=Packed(row.lengths), use_cache=False)
    hidden = states.last_hidden_state[0][row.sources]
    weights = torch.ones(len(row.labels), dtype=torch.float32, device=hidden.device)
    return label_loss(hidden, head, row.labels, weights, getattr(model.config, "final_logit_softcapping", None))


def label_objective(labelling: Labelling, layout: Layout, *, compute: torch.dtype | None = None) -> Objective:
    """Return the summed loss of a model with a head: cross-entropy of a class or a tag; binary cross-entropy, averaged over the labels;
    half the squared distance of a number in units of its spread.

    `compute` is the format that weights kept in fp32 are multiplied in.
    """

    def objective(model: Any, row: Row) -> torch.Tensor:
        with torch.autocast(row.tokens.device.type, dtype=compute, enabled=compute is not None):
            scores = label_scores(model, layout, row.tokens, row.positions, lengths=row.lengths, sources=row.sources, kinds=row.kinds)
        if labelling.task in ("classification", "tagging"):
            return cross_entropy_of(scores, row.labels, reduction="sum")
        if labelling.task == "regression":
            return ((scores[:, 0] - row.labels) ** 2).sum() / 2
        wanted = row.labels if labelling.task == "multi-label" else row.labels[:, None]
        return binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / scores.shape[1]

    return objective
