"""Attention over packed sequences: several texts in one row, none seeing another, nothing padded.

Registered with transformers as the attention implementation `metier`. What each token may see is a *plan* that is handed
through the model's forward call (`model(..., plan=plan)`), so the models' own code is used unchanged. Three plans exist:
`Packed` (training, likelihoods), `Prefill` (packed, and keys and values are kept) and `Decode` (one new token a row).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from metier.models.ragged import Layout, attend_ragged, trusted

__all__ = ["IMPLEMENTATION", "Cache", "Decode", "Packed", "Plan", "Prefill", "register"]

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


_Piece: TypeAlias = tuple[slice, slice | None, torch.Tensor | None]
"""Where a piece stands, where the piece stands that it goes on from (None: it begins), and what is added to its scores (None: it sees all)."""


class _PieceAttention(torch.autograd.Function):
    """Softmax attention of each piece to itself and to what it goes on from, forward and backward, by plain matrix products into shared buffers.

    For pieces of tens to hundreds of tokens this costs a fraction of the flash kernel on the CPU, and gradients are
    written where they belong instead of being added up over as many zero-filled copies as there are pieces. Query heads
    that share a key head are stacked into one product. The probabilities, [heads, tokens, tokens seen] a piece, are kept for
    the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: Sequence[_Piece], scale: float) -> torch.Tensor:
        heads, tokens, size = query.shape
        groups = heads // key.shape[0]
        output = query.new_empty(tokens, heads, size)
        output[pieces[-1][0].stop if pieces else 0 :] = 0
        kept = []
        for own, before, mask in pieces:
            length = own.stop - own.start
            scores = torch.bmm(_stack(query[:, own], groups), _seen(key, own, before).transpose(1, 2))
            scores = scores.view(heads, length, -1).mul_(scale)
            if mask is not None:
                scores.add_(mask)
            probabilities = torch.softmax(scores, dim=-1)
            result = torch.bmm(probabilities.view(key.shape[0], groups * length, -1), _seen(value, own, before))
            output[own] = result.view(heads, length, size).transpose(0, 1)
            kept.append(probabilities)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale = scale
        ctx.pieces = pieces
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads, shared = query.shape[0], key.shape[0]
        outer = gradients[0].transpose(0, 1)
        for_query, for_key, for_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for gradient in (for_query, for_key, for_value):
            gradient[:, ctx.pieces[-1][0].stop if ctx.pieces else 0 :] = 0
        for (own, before, _), probabilities in zip(ctx.pieces, kept, strict=True):
            length = own.stop - own.start
            into, stacked = _stack(outer[:, own], heads // shared), probabilities.view(shared, heads // shared * length, -1)
            _give(for_value, own, before, torch.bmm(stacked.transpose(1, 2), into))
            weight = torch.bmm(into, _seen(value, own, before).transpose(1, 2))
            scores = torch.ops.aten._softmax_backward_data(weight, stacked, -1, query.dtype).mul_(ctx.scale)
            for_query[:, own] = torch.bmm(scores, _seen(key, own, before)).view(heads, length, -1)
            _give(for_key, own, before, torch.bmm(scores.transpose(1, 2), _stack(query[:, own], heads // shared)))
        return for_query, for_key, for_value, None, None


def _seen(of: torch.Tensor, own: slice, before: slice | None) -> torch.Tensor:
    """Return the keys or values [heads, tokens, size] that a piece sees."""
    return of[:, own] if before is None else torch.cat([of[:, before], of[:, own]], dim=1)


def _give(gradient: torch.Tensor, own: slice, before: slice | None, part: torch.Tensor) -> None:
    """Hand the gradient of what a piece sees on: its own was not there yet, what it goes on from has been given its own before."""
    if before is not None:
        first = before.stop - before.start
        gradient[:, before] += part[:, :first]
        part = part[:, first:]
    gradient[:, own] = part


def _stack(heads: torch.Tensor, groups: int) -> torch.Tensor:
    """Turn [heads, length, size] into [heads / groups, groups * length, size]."""
    return heads.reshape(heads.shape[0] // groups, groups * heads.shape[1], heads.shape[2])


class Packed:
    """Attention inside each piece of a packed row: causal, or of every token to every other for encoders.

    `lengths` are the pieces' lengths in tokens, in order. Where `behind[i]` is not None, piece i goes on from that earlier piece, which begins a text, and sees
    all of it beside itself: several texts that begin alike hold their beginning once, and none sees how another goes on. Tokens behind the last piece
    attend to nothing: they only fill the row up.
    """

    def __init__(self, lengths: Sequence[int], *, behind: Sequence[int | None] = (), causal: bool = True) -> None:
        self.lengths = tuple(lengths)
        self.causal = causal
        self._behind = tuple(behind) or (None,) * len(self.lengths)
        ends = list(accumulate(self.lengths))
        self._places = [slice(end - length, end) for length, end in zip(self.lengths, ends, strict=True)]
        self._longest = max((self._sight(index) for index in range(len(self.lengths))), default=0)
        self._masks: dict[tuple[int, int | None, torch.dtype], torch.Tensor] = {}
        self._layout: Layout | None = None

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend piece by piece, or to all pieces at once where a kernel does that; see `Plan`."""
        if trusted(query, key, _by_products):
            if self._layout is None:
                self._layout = Layout(self.lengths, self._behind, query.device)
            return attend_ragged(query, key, value, self._layout, scale=scale, window=window, causal=self.causal)
        return self.attend_by_products(query, key, value, scale, window)

    def attend_by_products(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend piece by piece, by plain matrix products, or by torch's own kernels where pieces are long; see `Plan`."""
        if self._longest > _LONG:
            return self._attend_long(query, key, value, scale, window)
        pieces = [(own, self._before(index), self._added(index, window, query)) for index, own in enumerate(self._places)]
        output: torch.Tensor = _PieceAttention.apply(query[0], key[0], value[0], pieces, scale)  # type: ignore[no-untyped-call]
        return output[None]

    def _attend_long(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        parts = []
        for index, own in enumerate(self._places):
            before = self._before(index)
            plain = before is None and (window is None or self.lengths[index] <= window)
            mask = None if plain else self._added(index, window, query)
            keys, values = _seen(key[0], own, before)[None], _seen(value[0], own, before)[None]
            parts.append(_dense(query[:, :, own], keys, values, mask, scale, causal=self.causal))
        return pad(torch.cat(parts, dim=2), (0, 0, 0, query.shape[2] - sum(self.lengths))).transpose(1, 2)

    def _before(self, index: int) -> slice | None:
        before = self._behind[index]
        return None if before is None else self._places[before]

    def _sight(self, index: int) -> int:
        """How many tokens the last token of a piece sees."""
        before = self._behind[index]
        return self.lengths[index] + (0 if before is None else self.lengths[before])

    def _added(self, index: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """What is added to a piece's scores: 0 where a token is seen, minus infinity where not; [tokens, tokens seen]. None: all are seen."""
        sight = self._sight(index)
        narrow = window if window is not None and sight > window else None
        if not self.causal and narrow is None:
            return None
        name = (sight, narrow, like.dtype)
        if name not in self._masks:
            every = torch.ones(sight, sight, dtype=torch.bool)
            seen = every.tril() if self.causal else every
            if narrow is not None:
                apart = torch.arange(sight)[:, None] - torch.arange(sight)[None, :]
                seen = seen & ((apart if self.causal else apart.abs()) < narrow)
            self._masks[name] = torch.zeros(sight, sight, dtype=like.dtype).masked_fill_(~seen, float("-inf")).to(like.device)
        return self._masks[name][sight - self.lengths[index] :]


def _by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], behind: Sequence[int | None], window: int | None
) -> torch.Tensor:
    return Packed(lengths, behind=behind).attend_by_products(query, key, value, 1.0, window)


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
        keys[rows, :, at] = key[0, :, : len(rows)].transpose(0, 1)
        values[rows, :, at] = value[0, :, : len(rows)].transpose(0, 1)
        places = torch.arange(self._longest, device=key.device)
        seen = places[None, :] <= at[:, None]
        if window is not None:
            seen &= places[None, :] > (at - window)[:, None]
        past_keys, past_values = keys[:, :, : self._longest], values[:, :, : self._longest]
        if len(rows) < len(keys):
            past_keys, past_values = past_keys[rows], past_values[rows]
        output = _dense(query[0, :, : len(rows)].transpose(0, 1)[:, :, None], past_keys, past_values, seen[:, None, None, :], scale)
        return pad(output[:, :, 0], (0, 0, 0, 0, 0, query.shape[2] - len(rows)))[None]


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
