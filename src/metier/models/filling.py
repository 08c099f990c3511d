"""Rows of few different lengths, because on a processor the code of a product is made anew for every shape.

oneDNN writes code for each shape of a bf16 product that it meets and keeps that of the last thousand: a millisecond and half a megabyte each, in the
midst of the heap, where it also keeps what stands around it from being used again. Packed rows have as many tokens as their texts happen to have, so
they are filled up to one of few lengths. What is behind the texts attends to nothing, is seen by nothing and gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad

from metier.models.attention import Plan

__all__ = ["filled", "hidden_states", "with_filler"]


def filled(count: int, *, accelerator: bool = False) -> int:
    """Return what so many rows are filled up to: at most a sixteenth more, one of sixteen numbers between a power of two and the next.

    An accelerator's kernels are made for any shape: nothing is filled up there.
    """
    step = 1 if accelerator else 1 << max(0, (count - 1).bit_length() - 5)
    return -(-count // step) * step


def with_filler(rows: torch.Tensor) -> torch.Tensor:
    """Return rows [count, ...] with as many zeros behind them as fill them up."""
    more = filled(len(rows), accelerator=rows.device.type != "cpu") - len(rows)
    return pad(rows, (0, 0) * (rows.dim() - 1) + (0, more)) if more else rows


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
