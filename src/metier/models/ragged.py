"""Attention of packed pieces by torch's flash kernel for sequences of any length: one launch a layer where plain products take several a piece.

For accelerators. What the kernel computes is compared once, on a small case, with the plain products that it stands for; if it is not the same, or not there,
the products are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import torch

__all__ = ["Layout", "attend_ragged", "trusted"]

_TOLERANCE = 3e-2
"""Of numbers about 1 in size: bf16 has eight binary digits, and the products round the probabilities once more."""

_found: dict[tuple[Any, ...], bool] = {}

Reference: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Sequence[int], Sequence[int | None], int | None], torch.Tensor]
"""Attention [1, tokens, heads, size] of query, key, value [1, heads, tokens, size] in pieces (lengths, what each goes on from), inside a window; scale 1."""


class Layout:
    """Where pieces of a row lie, as the kernel wants it.

    `seen` are the places of the keys of each piece, one piece after the other (None: the row as it is); `queries` and `keys` are where each piece's begin.
    """

    def __init__(self, lengths: Sequence[int], behind: Sequence[int | None], device: torch.device) -> None:
        ends = list(accumulate(lengths))
        places = [torch.arange(end - length, end) for length, end in zip(lengths, ends, strict=True)]
        seen = [own if before is None else torch.cat([places[before], own]) for own, before in zip(places, behind, strict=True)]
        self.seen = torch.cat(seen).to(device) if any(before is not None for before in behind) else None
        self.queries = torch.tensor([0, *ends], dtype=torch.int32, device=device)
        self.keys = torch.tensor([0, *accumulate(map(len, seen))], dtype=torch.int32, device=device)
        self.most_queries, self.most_keys = max(lengths), max(map(len, seen))


def attend_ragged(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, *, scale: float, window: int | None, causal: bool
) -> torch.Tensor:
    """Return attention's output [1, tokens, heads, size] for query, key, value of shape [1, heads, tokens, size]: torch's `varlen_attn`.

    The last query of a piece stands at its last key, as FlashAttention aligns them from version 2.1 on.
    """
    from torch.nn.attention.varlen import varlen_attn

    keys, values = (of[0].transpose(0, 1) if layout.seen is None else of[0].transpose(0, 1)[layout.seen] for of in (key, value))
    back = -1 if window is None else window - 1
    found = varlen_attn(
        query[0].transpose(0, 1),
        keys,
        values,
        layout.queries,
        layout.keys,
        layout.most_queries,
        layout.most_keys,
        scale=scale,
        window_size=(back, 0 if causal else back),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(found, torch.Tensor)
    return found[None]


def trusted(query: torch.Tensor, key: torch.Tensor, reference: Reference) -> bool:
    """Return whether the kernel can be used for tensors like these, [1, heads, tokens, size]: on CUDA, in half precision, doing what `reference` does."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    kind = (query.device, query.dtype, query.shape[1], key.shape[1], query.shape[3])
    if kind not in _found:
        _found[kind] = agrees(*kind, reference=reference)
        if not _found[kind]:
            warnings.warn("torch's attention for packed texts does not do what plain products do on this device; the products are used", stacklevel=2)
    return _found[kind]


@torch.inference_mode(False)
@torch.enable_grad()
def agrees(device: torch.device, dtype: torch.dtype, heads: int, shared: int, size: int, *, reference: Reference) -> bool:
    """Return whether kernel and reference give the same, forward and backward, on pieces with and without a common beginning and a window."""
    lengths, behind = (70, 9, 1, 130, 33), (None, 0, 0, None, 3)
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> torch.Tensor:
        numbers: torch.Tensor = torch.randn(1, count, sum(lengths), size, generator=generator) * size**-0.25
        return numbers.to(device, dtype).requires_grad_()

    given = (drawn(heads), drawn(shared), drawn(shared))
    weights = torch.randn(1, sum(lengths), heads, size, generator=generator).to(device, dtype)
    layout = Layout(lengths, behind, device)
    for window in (None, 20):
        try:
            ours = attend_ragged(*given, layout, scale=1.0, window=window, causal=True)
            found = [ours, *torch.autograd.grad((ours * weights).sum(), given)]
        except (RuntimeError, ImportError, NotImplementedError):
            return False
        theirs = reference(*given, lengths, behind, window)
        expected = [theirs, *torch.autograd.grad((theirs * weights).sum(), given)]
        if not all(_alike(one.detach().float(), other.detach().float()) for one, other in zip(found, expected, strict=True)):
            return False
    return True


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=_TOLERANCE * max(1.0, float(other.abs().max())), rtol=_TOLERANCE)
