"""Rows of few different lengths, because on a processor the code of a product is made anew for every shape.

oneDNN writes code for each shape of a bf16 product that it meets and keeps that of the last thousand: a millisecond and half a megabyte each, in the
midst of the heap, where it also keeps what stands around it from being used again. Packed rows have as many tokens as their texts happen to have, so
they are filled up to one of few lengths, and so are the texts in them where tokens attend to each other. What is behind the texts attends to nothing, is
seen by nothing and gets no gradient.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

__all__ = ["accelerated", "filled", "with_filler"]


def accelerated(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on an accelerator; one without values (`meta`) stands for one that is not."""
    return tensor.device.type not in {"cpu", "meta"}


def filled(count: int, *, accelerator: bool = False) -> int:
    """Return what so many rows are filled up to: at most a sixteenth more, one of sixteen numbers between a power of two and the next.

    An accelerator's kernels are made for any shape: nothing is filled up there.
    """
    step = 1 if accelerator else 1 << max(0, (count - 1).bit_length() - 5)
    return -(-count // step) * step


def with_filler(rows: torch.Tensor) -> torch.Tensor:
    """Return rows [count, ...] with as many zeros behind them as fill them up."""
    more = filled(len(rows), accelerator=accelerated(rows)) - len(rows)
    return pad(rows, (0, 0) * (rows.dim() - 1) + (0, more)) if more else rows
