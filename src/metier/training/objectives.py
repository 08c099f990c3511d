"""What is minimised: functions of a model and a packed row. Objectives add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from metier.models.attention import Packed
from metier.models.head import label_loss
from metier.training.batches import Row

__all__ = ["Objective", "cross_entropy"]

Objective: TypeAlias = Callable[[Any, Row], torch.Tensor]
"""Returns the summed loss of a row, in nats; the loop divides by the learnt tokens of the whole step."""


def cross_entropy(model: Any, row: Row) -> torch.Tensor:
    """Return the negative log-likelihood of a row's labels, summed; `model` is a causal language model of transformers."""
    head = model.get_output_embeddings().weight
    states = model.get_decoder()(input_ids=row.tokens[None], position_ids=row.positions[None], plan=Packed(row.lengths), use_cache=False)
    hidden = states.last_hidden_state[0][row.sources]
    weights = torch.ones(len(row.labels), dtype=torch.float32, device=hidden.device)
    return label_loss(hidden, head, row.labels, weights, getattr(model.config, "final_logit_softcapping", None))
