"""Attention over packed sequences: several texts in one row, none seeing another, nothing padded.

Registered with transformers as the attention implementation `metier`. What each token may see is a *plan* that is handed
through the model's forward call (`model(..., plan=plan)`), so the models' own code is used unchanged. Three plans exist:
`Packed` (training, likelihoods), `Prefill` (packed, and keys and values are kept) and `Decode` (one new token a row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from metier.models.filling import accelerated, filled
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where a piece stands, and the piece that it goes on from (None: it begins); what its products are filled up to, and what is added to their scores
    (None: it sees all).
    """

    own: slice
    before: slice | None
    rows: int
    columns: int
    mask: torch.Tensor | None

    @property
    def length(self) -> int:
        """Tokens of the piece itself."""
        return int(self.own.stop - self.own.start)

    def of(self, tensor: torch.Tensor, groups: int) -> torch.Tensor:
        """Turn [heads, tokens, size] into the piece's own [heads / groups, groups * rows, size], with zeros behind it."""
        return _stack(_zeros_behind(tensor[:, self.own], self.rows), groups)

    def asking(self, query: torch.Tensor, groups: int) -> torch.Tensor:
        """Return its queries likewise, filled up by whatever stands behind it: what comes of that is thrown away, and spares a copy."""
        return _stack(_with_more(query, self.own, self.rows), groups)

    def seen(self, of: torch.Tensor) -> torch.Tensor:
        """Return the keys or values [heads, columns, size] that the piece sees, filled up by what it does not see."""
        if self.before is None:
            return _with_more(of, self.own, self.columns)
        return _zeros_behind(torch.cat([of[:, self.before], of[:, self.own]], dim=1), self.columns)

    def give(self, gradient: torch.Tensor, part: torch.Tensor) -> None:
        """Hand the gradient of what the piece sees on: its own was not there yet, what it goes on from has been given its own before."""
        first = 0
        if self.before is not None:
            first = self.before.stop - self.before.start
            gradient[:, self.before] += part[:, :first]
        gradient[:, self.own] = part[:, first : first + self.length]


def _zeros_behind(part: torch.Tensor, count: int) -> torch.Tensor:
    """Return [heads, count, size]: a part, and zeros."""
    return part if part.shape[1] == count else pad(part, (0, 0, 0, count - part.shape[1]))


def _with_more(of: torch.Tensor, own: slice, count: int) -> torch.Tensor:
    """Return [heads, count, size] from where `own` begins: what stands behind it, or zeros where the row ends."""
    return _zeros_behind(of[:, own.start : own.start + count], count)


def _stack(heads: torch.Tensor, groups: int) -> torch.Tensor:
    """Turn [heads, rows, size] into [heads / groups, groups * rows, size]."""
    return heads.reshape(heads.shape[0] // groups, groups * heads.shape[1], heads.shape[2])


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
        output[pieces[-1].own.stop if pieces else 0 :] = 0
        kept = []
        for piece in pieces:
            scores = torch.bmm(piece.asking(query, groups), piece.seen(key).transpose(1, 2))
            scores = scores.view(heads, piece.rows, piece.columns).mul_(scale)
            if piece.mask is not None:
                scores.add_(piece.mask)
            probabilities = torch.softmax(scores, dim=-1)
            result = torch.bmm(probabilities.view(key.shape[0], groups * piece.rows, piece.columns), piece.seen(value))
            output[piece.own] = result.view(heads, piece.rows, size)[:, : piece.length].transpose(0, 1)
            kept.append(probabilities)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale = scale
        ctx.pieces = pieces
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads, shared = query.shape[0], key.shape[0]
        outer, groups = gradients[0].transpose(0, 1), heads // shared
        for_query, for_key, for_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for gradient in (for_query, for_key, for_value):
            gradient[:, ctx.pieces[-1].own.stop if ctx.pieces else 0 :] = 0
        for piece, probabilities in zip(ctx.pieces, kept, strict=True):
            into, stacked = piece.of(outer, groups), probabilities.view(shared, groups * piece.rows, piece.columns)
            piece.give(for_value, torch.bmm(stacked.transpose(1, 2), into))
            weight = torch.bmm(into, piece.seen(value).transpose(1, 2))
            scores = torch.ops.aten._softmax_backward_data(weight, stacked, -1, query.dtype).mul_(ctx.scale)
            for_query[:, piece.own] = torch.bmm(scores, piece.seen(key)).view(heads, piece.rows, -1)[:, : piece.length]
            piece.give(for_key, torch.bmm(scores.transpose(1, 2), piece.asking(query, groups)))
        return for_query, for_key, for_value, None, None


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
        self._masks: dict[tuple[int, int, int | None, torch.dtype], torch.Tensor] = {}
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
        pieces = [self._piece(index, window, query) for index in range(len(self._places))]
        output: torch.Tensor = _PieceAttention.apply(query[0], key[0], value[0], pieces, scale)  # type: ignore[no-untyped-call]
        return output[None]

    def _attend_long(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        parts = []
        for index, own in enumerate(self._places):
            before = self._before(index)
            plain = before is None and (window is None or self.lengths[index] <= window)
            piece = _Piece(own, before, self.lengths[index], self._sight(index), None)
            mask = None if plain else self._added(index, window, query, (piece.rows, piece.columns))
            keys, values = piece.seen(key[0])[None], piece.seen(value[0])[None]
            parts.append(_dense(query[:, :, own], keys, values, mask, scale, causal=self.causal))
        return pad(torch.cat(parts, dim=2), (0, 0, 0, query.shape[2] - sum(self.lengths))).transpose(1, 2)

    def _before(self, index: int) -> slice | None:
        before = self._behind[index]
        return None if before is None else self._places[before]

    def _sight(self, index: int) -> int:
        """How many tokens the last token of a piece sees."""
        before = self._behind[index]
        return self.lengths[index] + (0 if before is None else self.lengths[before])

    def _piece(self, index: int, window: int | None, like: torch.Tensor) -> _Piece:
        rows, columns = (filled(count, accelerator=accelerated(like)) for count in (self.lengths[index], self._sight(index)))
        return _Piece(self._places[index], self._before(index), rows, columns, self._added(index, window, like, (rows, columns)))

    def _added(self, index: int, window: int | None, like: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor | None:
        """What is added to a piece's scores of a shape: 0 where a token is seen, minus infinity where not. None: all are seen.

        Rows that fill up see everything, so that no sum is over nothing.
        """
        length, sight = self.lengths[index], self._sight(index)
        narrow = window if window is not None and sight > window else None
        if not self.causal and narrow is None and shape[1] == sight:
            return None
        name = (length, sight, narrow, like.dtype)
        if name not in self._masks:
            column = torch.arange(shape[1])[None]
            apart = torch.arange(sight - length, sight - length + shape[0])[:, None] - column
            seen = apart >= 0 if self.causal else (column < sight).expand(shape)
            if narrow is not None:
                seen = seen & ((apart if self.causal else apart.abs()) < narrow)
            hidden = ~seen
            hidden[length:] = False
            self._masks[name] = torch.zeros(shape, dtype=like.dtype).masked_fill_(hidden, float("-inf")).to(like.device)
        return self._masks[name]


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
