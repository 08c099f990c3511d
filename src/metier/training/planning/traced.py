"""What a training step takes, counted on the real model's own code without any values: every tensor has a shape and no numbers (torch's meta device).

Whatever the architecture and the method, the bytes that autograd keeps and the FLOPs of the products are those of the real step: nothing is worked out
by hand that could differ from what the modules do. tests/training/test_planning_labels.py compares them with a real step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from metier.models.filling import filled
from metier.training.batches import Row, row_of
from metier.training.planning.memory import RowShape

__all__ = ["Counted", "Work", "count", "without_values"]

_ROWS = (((8, 8),), ((16, 4),), ((8, 2), (8, 4)), ((24, 6), (8, 8)), ((16, 2), (16, 16), (8, 1)), ((32, 10),))
"""Length and words of each example of the rows on which the work is measured.

It is a sum of parts in proportion to tokens, pairs of tokens, examples, answers and nothing (what a row takes once), so that these say it for every row.
"""


_ENOUGH = 4


@dataclass(frozen=True, slots=True)
class Counted:
    """One row, forward and backward: bytes that autograd keeps of the forward pass (weights left out), FLOPs forward, and FLOPs of both."""

    kept: int
    forward: int
    flops: int


def without_values(row: Row) -> Row:
    """Return a row whose tensors have shapes and no values."""
    given = {field.name: getattr(row, field.name) for field in fields(row)}
    tensors: dict[str, Any] = {name: value.to("meta") for name, value in given.items() if isinstance(value, torch.Tensor)}
    return replace(row, **tensors)


def count(model: Any, objective: Callable[[Any, Row], torch.Tensor], row: Row) -> Counted:
    """Return what a row takes on a model without values (see `metier.models.heads.outline`) that is in training mode."""
    own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = objective(model, without_values(row))
        forward = counter.get_total_flops()
        loss.backward()  # type: ignore[no-untyped-call]
        both = counter.get_total_flops()
    model.zero_grad(set_to_none=True)
    return Counted(sum(storage.nbytes() for storage in found.values()), forward, both)


class Work:
    """FLOPs of rows of any shape, forward and both ways, from those of a few small ones."""

    def __init__(self, model: Any, objective: Callable[[Any, Row], torch.Tensor], example: Callable[[int, int], Any], *, by_word: bool) -> None:
        """`example(length, answers)` makes one; `by_word` says whether each word has an answer, or the whole text one."""
        features, measured = [], []
        # Where a text has one answer, answers and examples are the same number: a row less says as much.
        for row in _ROWS if by_word else _ROWS[:_ENOUGH]:
            lengths, given = [length for length, _ in row], [words if by_word else 1 for _, words in row]
            found = count(model, objective, row_of([example(*pair) for pair in zip(lengths, given, strict=True)]))
            held = sum(filled(length) ** 2 for length in lengths)
            features.append(_features(RowShape(sum(lengths), sum(length**2 for length in lengths), sum(given), len(lengths), max(lengths), held)))
            measured.append((found.forward, found.flops))
        self._parts = np.linalg.lstsq(np.asarray(features), np.asarray(measured, dtype=float), rcond=None)[0]

    def of(self, rows: Sequence[RowShape]) -> tuple[float, float]:
        """Return the FLOPs of all these rows, forward and both ways."""
        if not rows:
            return 0.0, 0.0
        forward, both = np.asarray([_features(row) for row in rows]).sum(axis=0) @ self._parts
        return float(forward), float(both)


def _features(row: RowShape) -> list[float]:
    return [1.0, filled(row.tokens), row.pairs if row.held is None else row.held, row.examples, row.labels]
