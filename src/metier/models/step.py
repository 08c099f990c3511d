"""One step of a batch whose rows come and go: what a row gets does not depend on which other rows are there.

A processor's matrix product may round a row otherwise when the number of rows, or the length over which attention is summed, is
another. So rows are filled up to a multiple of 4, where the kernels that were looked at (torch 2.13, fp32 and bf16, AVX-512) give the
same bits, and attention runs over a length that follows from the row's own length alone.
"""

from __future__ import annotations

import torch

from metier.models.attention import Cache

__all__ = ["ROUND", "Step", "padded"]

ROUND = 4
"""Rows of a step are filled up to a multiple of this."""

_BLOCK = 64
"""Attention runs over the row's length rounded up to a multiple of this, in tokens; rows of one length class share a call."""


def padded(count: int) -> int:
    """Return how many rows a step of `count` rows is made of."""
    return -(-count // ROUND) * ROUND


class Step:
    """One new token for each of the cache's first `rows` rows, packed as one row of `padded(rows)` tokens; a `Plan` of attention."""

    def __init__(self, cache: Cache, rows: int) -> None:
        self._cache = cache
        self._rows = rows
        self._at = torch.tensor(cache.lengths[:rows])
        classes: dict[int, list[int]] = {}
        for row in range(rows):
            classes.setdefault(min(cache.capacity, (cache.lengths[row] // _BLOCK + 1) * _BLOCK), []).append(row)
        self._classes: list[tuple[slice | torch.Tensor, int, torch.Tensor]] = []
        for length, members in classes.items():
            index = torch.tensor(members)
            places = torch.arange(length)[None, :]
            neighbours = members == list(range(members[0], members[-1] + 1))
            self._classes.append((slice(members[0], members[-1] + 1) if neighbours else index, length, places - self._at[index][:, None]))
        for row in range(rows):
            cache.lengths[row] += 1

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Append and attend; see `metier.models.attention.Plan`."""
        keys, values = self._cache.layer(layer, key)
        rows = torch.arange(self._rows)
        keys[rows, :, self._at] = key[0, :, : self._rows].transpose(0, 1)
        values[rows, :, self._at] = value[0, :, : self._rows].transpose(0, 1)
        output = query.new_zeros(query.shape[2], query.shape[1], query.shape[3])
        asked = query[0].transpose(0, 1)
        for members, length, ahead in self._classes:
            seen = ahead <= 0
            if window is not None:
                seen = seen & (ahead > -window)
            output[members] = _attend(asked[members], keys[members, :, :length], values[members, :, :length], seen, scale)
        return output[None]


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor, scale: float) -> torch.Tensor:
    """Return softmax attention [rows, heads, size] of one query a row over [rows, shared heads, length, size] where `seen` [rows, length].

    For one query a row these plain products take a quarter of the flash kernel's time on the CPU, or less, and round each row alike.
    """
    shared = keys.shape[1]
    stacked = query.reshape(len(query), shared, -1, query.shape[-1])
    scores = torch.matmul(stacked, keys.transpose(2, 3)).mul_(scale).masked_fill_(~seen[:, None, None, :], float("-inf"))
    return torch.matmul(torch.softmax(scores, dim=-1), values).view_as(query)
