"""One step of a batch whose rows come and go: what a row gets does not depend on which other rows are there.

A processor's matrix product may round a row otherwise when the number of rows, or the length over which attention is summed, is
another. So rows are filled up to a multiple of 4, where the kernels that were looked at (torch 2.13, fp32 and bf16, AVX-512) give the
same bits. Attention is worked out row by row, over a length that follows from the row's own length alone: in bf16 a batch of small products
is, seldom, rounded otherwise than each of them by itself.
"""

from __future__ import annotations

import torch

from metier.models.attention import Cache

__all__ = ["ROUND", "Step", "padded"]

ROUND = 4
"""Rows of a step are filled up to a multiple of this."""

_BLOCK = 64
"""Attention runs over the row's length rounded up to a multiple of this, in tokens: the code of a product is made for its shape."""


def padded(count: int) -> int:
    """Return how many rows a step of `count` rows is made of."""
    return -(-count // ROUND) * ROUND


class Step:
    """One new token for each of the cache's first `rows` rows, packed as one row of `padded(rows)` tokens; a `Plan` of attention."""

    def __init__(self, cache: Cache, rows: int) -> None:
        self._cache = cache
        self._rows = rows
        self._at = torch.tensor(cache.lengths[:rows])
        self._lengths = [min(cache.capacity, (length // _BLOCK + 1) * _BLOCK) for length in cache.lengths[:rows]]
        self._hidden: dict[int | None, list[torch.Tensor]] = {}
        for row in range(rows):
            cache.lengths[row] += 1

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Append and attend; see `metier.models.attention.Plan`."""
        keys, values = self._cache.layer(layer, key)
        rows = torch.arange(self._rows)
        keys[rows, :, self._at] = key[0, :, : self._rows].transpose(0, 1)
        values[rows, :, self._at] = value[0, :, : self._rows].transpose(0, 1)
        output = query.new_zeros(query.shape[2], query.shape[1], query.shape[3])
        for row, (length, hidden) in enumerate(zip(self._lengths, self._unseen(window), strict=True)):
            output[row] = _attend(query[0, :, row], keys[row, :, :length], values[row, :, :length], hidden, scale)
        return output[None]

    def _unseen(self, window: int | None) -> list[torch.Tensor]:
        """Return for each row which places [length] its token does not see: what comes after it, and what lies further back than the window."""
        if window not in self._hidden:
            ahead = [torch.arange(length) - at for length, at in zip(self._lengths, self._at.tolist(), strict=True)]
            self._hidden[window] = [(places > 0) if window is None else (places > 0) | (places <= -window) for places in ahead]
        return self._hidden[window]


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor, scale: float) -> torch.Tensor:
    """Return softmax attention [heads, size] of one query over [shared heads, length, size], but for the places `hidden` [length].

    For one query these plain products take a quarter of the flash kernel's time on the CPU, or less.
    """
    scores = torch.bmm(query.reshape(len(keys), -1, query.shape[-1]), keys.transpose(1, 2)).mul_(scale).masked_fill_(hidden, float("-inf"))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view_as(query)
