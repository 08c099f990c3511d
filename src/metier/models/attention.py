"""Attention over packed sequences: several texts in one row, none seeing another, nothing padded.

Registered with transformers as the attention implementation `metier`. What each token may see is a *plan* that is handed
through the model's forward call (`model(..., plan=plan)`), so the models' own code is used unchanged. Three plans exist:
`Packed` (training, likelihoods), `Prefill` (packed, and keys and values are kept) and `Decode` (one new token a row).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

__all__ = ["IMPLEMENTATION", "Cache", "Decode", "Packed", "Plan", "Prefill", "branch_mask", "register"]

IMPLEMENTATION = "metier"


class Plan(Protocol):
    """Says what each token of a packed row attends to."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Return attention's output [1, tokens, heads, size] for query, key, value of shape [1, heads, tokens, size]."""


def _dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    causal = mask is None and query.shape[2] > 1
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)


class Packed:
    """Causal attention inside each segment of a packed row.

    `lengths` are the segments' lengths in tokens, in order. `branches` gives for some segments (by index) a boolean mask
    [length, length] instead of plain causality, as `branch_mask` makes it for several continuations of one prompt.
    """

    def __init__(self, lengths: Sequence[int], *, branches: dict[int, torch.Tensor] | None = None, positions: torch.Tensor | None = None) -> None:
        self.lengths = tuple(lengths)
        self._branches = branches or {}
        self._positions = positions
        self._windowed: dict[tuple[int, int], torch.Tensor | None] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend segment by segment; see `Plan`."""
        parts, start = [], 0
        for index, length in enumerate(self.lengths):
            end = start + length
            mask = self._mask(index, start, length, window, query.device)
            parts.append(_dense(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], mask, scale))
            start = end
        return torch.cat(parts, dim=2).transpose(1, 2)

    def _mask(self, index: int, start: int, length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
        branch = self._branches.get(index)
        if window is None or length <= window:
            return branch
        if (index, window) not in self._windowed:
            positions = torch.arange(length, device=device) if self._positions is None else self._positions[start : start + length]
            near = (positions[:, None] - positions[None, :]) < window
            allowed = torch.ones(length, length, dtype=torch.bool, device=device).tril() if branch is None else branch
            self._windowed[(index, window)] = allowed & near
        return self._windowed[(index, window)]


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


class Prefill:
    """Packed prompts whose keys and values are kept: segment i becomes row i of the cache."""

    def __init__(self, lengths: Sequence[int], cache: Cache) -> None:
        self._packed = Packed(lengths)
        self._cache = cache
        cache.lengths = list(lengths)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Store and attend; see `Plan`."""
        keys, values = self._cache.layer(layer, key)
        start = 0
        for row, length in enumerate(self._packed.lengths):
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
        past_keys, past_values = keys[rows, :, : self._longest], values[rows, :, : self._longest]
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
    return plan.attend(int(layer), query, key, value, scale, sliding_window).contiguous(), None


def register() -> None:
    """Make the attention implementation known to transformers; calling it again changes nothing."""
    AttentionInterface.register(IMPLEMENTATION, _attention)
