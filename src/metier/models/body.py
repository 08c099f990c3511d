"""A model without its head, called on a packed row."""

from __future__ import annotations

from typing import Any

import torch

from metier.models.attention import Plan
from metier.models.filling import with_filler

__all__ = ["hidden_states"]


def hidden_states(
    body: Any, tokens: torch.Tensor, positions: torch.Tensor, plan: Plan, *, kinds: torch.Tensor | None = None, layer: int | None = None
) -> torch.Tensor:
    """Return the hidden states [tokens, hidden] that a model without its head gives a packed row; `tokens`, `positions` and `kinds` are 1-D.

    They are the last ones, or those after `layer` layers. `plan` says what each token attends to, and knows nothing of what fills the row up.
    """
    extra: dict[str, Any] = {} if kinds is None else {"token_type_ids": with_filler(kinds)[None]}
    extra |= {} if layer is None else {"output_hidden_states": True}
    output = body(input_ids=with_filler(tokens)[None], position_ids=with_filler(positions)[None], plan=plan, use_cache=False, **extra)
    states: torch.Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return states[0, : len(tokens)]
