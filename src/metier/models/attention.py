"""Attention over packed sequences: several texts in one row, none seeing another, nothing padded.

Registered with transformers as the attention implementation `metier`. What each token may see is a *plan* that is handed
through the model's forward call (`model(..., plan=plan)`), so the models' own code is used unchanged. Three plans exist:
`Packed` (training, likelihoods), `Prefill` (packed, and keys and values are kept) and `Decode` (one new token a row).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

__all__ = ["IMPLEMENTATION", "Cache", "Decode", "Packed", "Plan", "Prefill", "branch_mask", "register"]

IMPLEMENTATION = "metier"

_LONG = 1024
"""Segments longer than this go through torch's flash kernel: their probabilities would take too much memory."""


class Plan(Protocol):
    """Says what each token of a packed row attends to."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Return attention's output [1, tokens, heads, size] for query, key, value of shape [1, heads, tokens, size]."""


def _dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float, *, causal: bool = True) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    causal = causal and mask is None and query.shape[2] > 1
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)


_Segment: TypeAlias = tuple[int, torch.Tensor | None]
"""Length of a segment, and what is added to its scores (None: nothing, every token sees every other)."""


class _SegmentAttention(torch.autograd.Function):
    """Softmax attention inside each segment, forward and backward, by plain matrix products into shared buffers.

    For segments of tens to hundreds of tokens this costs a fraction of the flash kernel on the CPU, and gradients are
    written where they belong instead of being added up over as many zero-filled copies as there are segments. Query heads
    that share a key head are stacked into one product. The probabilities, [heads, length, length] a segment, are kept for
    the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Sequence[_Segment], scale: float) -> torch.Tensor:
        heads, tokens, size = query.shape
        groups = heads // key.shape[0]
        output = query.new_empty(tokens, heads, size)
        kept, start = [], 0
        for length, mask in segments:
            part = slice(start, start + length)
            scores = torch.bmm(_stack(query[:, part], groups), key[:, part].transpose(1, 2))
            scores = scores.view(heads, length, length).mul_(scale)
            if mask is not None:
                scores.add_(mask)
            probabilities = torch.softmax(scores, dim=-1)
            result = torch.bmm(probabilities.view(key.shape[0], -1, length), value[:, part])
            output[part] = result.view(heads, length, size).transpose(0, 1)
            kept.append(probabilities)
            start = part.stop
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads, shared = query.shape[0], key.shape[0]
        outer = gradients[0].transpose(0, 1)
        for_query, for_key, for_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        start = 0
        for probabilities in kept:
            length = probabilities.shape[-1]
            part = slice(start, start + length)
            into, stacked = _stack(outer[:, part], heads // shared), probabilities.view(shared, -1, length)
            for_value[:, part] = torch.bmm(stacked.transpose(1, 2), into)
            weight = torch.bmm(into, value[:, part].transpose(1, 2))
            scores = torch.ops.aten._softmax_backward_data(weight, stacked, -1, query.dtype).mul_(ctx.scale)
            for_query[:, part] = torch.bmm(scores, key[:, part]).view(heads, length, -1)
            for_key[:, part] = torch.bmm(scores.transpose(1, 2), _stack(query[:, part], heads // shared))
            start += length
        return for_query, for_key, for_value, None, None


def _stack(heads: torch.Tensor, groups: int) -> torch.Tensor:
    """Turn [heads, length, size] into [heads / groups, groups * length, size]."""
    return heads.reshape(heads.shape[0] // groups, groups * heads.shape[1], heads.shape[2])


class Packed:
    """Attention inside each segment of a packed row: causal, or of every token to every other for encoders.

    `lengths` are the segments' lengths in tokens, in order. `branches` gives for some segments (by index) a boolean mask
    [length, length] instead of plain causality, as `branch_mask` makes it for several continuations of one prompt.
    """

    def __init__(
        self, lengths: Sequence[int], *, branches: dict[int, torch.Tensor] | None = None, positions: torch.Tensor | None = None, causal: bool = True
    ) -> None:
        self.lengths = tuple(lengths)
        self.causal = causal
        self._branches = branches or {}
        self._positions = positions
        self._masks: dict[tuple[int, int | None, torch.dtype], torch.Tensor] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend segment by segment; see `Plan`."""
        if max(self.lengths) > _LONG:
            return self._attend_long(query, key, value, scale, window)
        segments = [(length, None if self._sees_all(index, window) else self._added(index, window, query)) for index, length in enumerate(self.lengths)]
        output: torch.Tensor = _SegmentAttention.apply(query[0], key[0], value[0], segments, scale)  # type: ignore[no-untyped-call]
        return output[None]

    def _attend_long(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        parts, start = [], 0
        for index, length in enumerate(self.lengths):
            end = start + length
            plain = index not in self._branches and (window is None or length <= window)
            mask = None if plain else self._added(index, window, query)
            parts.append(_dense(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], mask, scale, causal=self.causal))
            start = end
        return torch.cat(parts, dim=2).transpose(1, 2)

    def _sees_all(self, index: int, window: int | None) -> bool:
        return not self.causal and index not in self._branches and (window is None or self.lengths[index] <= window)

    def _added(self, index: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """What is added to a segment's scores: 0 where a token is seen, minus infinity where not; [length, length]."""
        length = self.lengths[index]
        narrow = window if window is not None and length > window else None
        branch = self._branches.get(index)
        name = (index if branch is not None else -length, narrow, like.dtype)
        if name not in self._masks:
            every = torch.ones(length, length, dtype=torch.bool)
            seen = branch if branch is not None else every.tril() if self.causal else every
            if narrow is not None:
                start = sum(self.lengths[:index])
                places = torch.arange(length) if self._positions is None else self._positions[start : start + length].cpu()
                apart = places[:, None] - places[None, :]
                seen = seen.cpu() & ((apart if self.causal else apart.abs()) < narrow)
            self._masks[name] = torch.zeros(length, length, dtype=like.dtype).masked_fill_(~seen.cpu(), float("-inf")).to(like.device)
        return self._masks[name]


def branch_mask(prompt: int, branches: Sequence[int]) -> torch.Tensor:
    """Return the mask of one prompt followed by several alternative continuations: [n, n] booleans, True is seen.

    Every continuation sees the prompt and itself, causally, and none of the others.
    """
    owner = torch.cat([torch.zeros(prompt, dtype=torch.long), *[torch.full((length,), number + 1) for number, length in enumerate(branches)]])
    same = (owner[:, None] == owner[None, :]) | (owner[None, :] == 0)
    return same & torch.ones(len(owner), len(owner), dtype=torch.bool).tril()


class Cache:
    """Keys and values of a batch of growing sequences, [rows, heads, capacity, size] a layer, made on first use."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows = rows
        self.capacity = capacity
        self.lengths = [0] * rows
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(self, index: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the key and value tensors of a layer; `like` is a key of shape [1, heads, tokens, size]."""
        if index not in self.layers:
            shape = (self.rows, like.shape[1], self.capacity, like.shape[3])
            self.layers[index] = (like.new_zeros(shape), like.new_zeros(shape))
        return self.layers[index]

    def move(self, source: int, target: int) -> None:
        """Let row `target` hold what row `source` holds; `source` is left as it was."""
        length = self.lengths[source]
        for pair in self.layers.values():
            for tensor in pair:
                tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length

    def clear(self, row: int) -> None:
        """Make a row empty. Its numbers are erased: masked places still take part as 0 times their value, and 0 times NaN is NaN."""
        for pair in self.layers.values():
            for tensor in pair:
                tensor[row, :, : self.lengths[row]] = 0
        self.lengths[row] = 0


class Prefill:
    """Packed prompts whose keys and values are kept: segment i becomes row `rows[i]` of the cache, by default row i."""

    def __init__(self, lengths: Sequence[int], cache: Cache, rows: Sequence[int] | None = None) -> None:
        self._packed = Packed(lengths)
        self._cache = cache
        self._rows = range(len(lengths)) if rows is None else rows
        for row, length in zip(self._rows, lengths, strict=True):
            cache.lengths[row] = length

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Store and attend; see `Plan`."""
        keys, values = self._cache.layer(layer, key)
        start = 0
        for row, length in zip(self._rows, self._packed.lengths, strict=True):
            keys[row, :, :length] = key[0, :, start : start + length]
            values[row, :, :length] = value[0, :, start : start + length]
            start += length
        return self._packed.attend(layer, query, key, value, scale, window)


class Decode:
    """One new token for each of the cache's `rows` (indices), packed as one row of that many tokens."""

    def __init__(self, cache: Cache, rows: Sequence[int]) -> None:
        self._cache = cache
        self._rows = torch.tensor(rows)
        self._at = torch.tensor([cache.lengths[row] for row in rows])
        self._longest = int(self._at.max()) + 1
        for row in rows:
            cache.lengths[row] += 1

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Append and attend; see `Plan`."""
        keys, values = self._cache.layer(layer, key)
        rows, at = self._rows.to(key.device), self._at.to(key.device)
        keys[rows, :, at] = key[0].transpose(0, 1)
        values[rows, :, at] = value[0].transpose(0, 1)
        places = torch.arange(self._longest, device=key.device)
        seen = places[None, :] <= at[:, None]
        if window is not None:
            seen &= places[None, :] > (at - window)[:, None]
        past_keys, past_values = keys[:, :, : self._longest], values[:, :, : self._longest]
        if len(rows) < len(keys):
            past_keys, past_values = past_keys[rows], past_values[rows]
        output = _dense(query[0].transpose(0, 1)[:, :, None], past_keys, past_values, seen[:, None, None, :], scale)
        return output[:, :, 0][None]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    plan: Plan | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if plan is None:
        raise ValueError("a model loaded by Metier is called with plan=...: see metier.models.attention")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: Any = module.layer_idx
    prefix = getattr(module, "prefix", None)
    if prefix is not None:
        key, value = prefix(key, value)
    return plan.attend(int(layer), query, key, value, scale, sliding_window).contiguous(), None


def register() -> None:
    """Make the attention implementation known to transformers; calling it again changes nothing."""
    AttentionInterface.register(IMPLEMENTATION, _attention)
