"""How much there is to multiply: FLOPs of a packed row, of a whole training, and the time they take at a measured rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metier.models.filling import filled
from metier.training.alike import families
from metier.training.batches import pack, shares_beginnings
from metier.training.curriculum import Plan
from metier.training.examples import Examples
from metier.training.planning.memory import RowShape, lengthened
from metier.training.planning.methods import Method, trainable_parameters
from metier.training.planning.shape import ModelShape, linear_weights
from metier.training.settings import ObjectiveSettings

__all__ = ["Load", "beside", "forward_flops", "load_of", "row_shape", "training_flops"]


@dataclass(frozen=True, slots=True)
class Load:
    """What a training reads: its examples, the rows of all its epochs step by step, and the rows of one validation."""

    examples: int
    dropped: int
    tokens: int
    """Tokens of the examples of all epochs; what several of a row begin with is read once and counted for each."""
    steps: tuple[tuple[RowShape, ...], ...]
    checks: tuple[RowShape, ...]

    @property
    def rows(self) -> list[RowShape]:
        """The rows of all steps, in order."""
        return [row for step in self.steps for row in step]

    @property
    def labels(self) -> int:
        """Tokens learnt in all epochs."""
        return sum(row.labels for row in self.rows)


def row_shape(examples: Examples, row: Sequence[int]) -> RowShape:
    """Return the shape of the packed row of the examples at these places, without making it: what several begin with is read once."""
    lengths = examples.lengths[list(row)].tolist()
    tokens, pairs = sum(lengths), sum(length * length for length in lengths)
    held = sum(filled(length) ** 2 for length in lengths)
    for family in families([examples.examples[place].tokens for place in row]) if shares_beginnings(examples) else ():
        spared, own = (len(family.members) - 1) * family.common, sum(lengths[place] - family.common for place in family.members)
        # A token of the beginning looks at nothing behind it: one that goes on looks at both.
        tokens, pairs = tokens - spared, pairs - (spared + own) * family.common
        if family.common:
            whole = [lengths[place] for place in family.members]
            held += filled(family.common) ** 2 + sum(filled(length - family.common) * filled(length) - filled(length) ** 2 for length in whole)
    return RowShape(tokens, pairs, int(examples.learnt[list(row)].sum()), len(lengths), max(lengths), held)


def load_of(taught: Examples, plan: Plan, checks: Examples, *, row_tokens: int) -> Load:
    """Return what a plan of steps reads, and one validation on the examples `checks`, whose rows hold `row_tokens` tokens."""
    steps = tuple(tuple(row_shape(taught, row) for row in step) for step in plan.steps)
    rows = pack(checks.lengths.tolist(), range(len(checks)), row_tokens)
    tokens = int(taught.lengths[np.asarray(plan.steps.places)].sum())
    return Load(len(taught), len(taught.drops), tokens, steps, tuple(row_shape(checks, row) for row in rows))


def forward_flops(shape: ModelShape, row: RowShape) -> int:
    """Return the FLOPs of reading a row: 2 a weight and token, 4 a pair of tokens and query value (dense inside each example), the head at labels."""
    body = 2 * shape.layers * linear_weights(shape) * row.tokens
    attention = 4 * shape.layers * shape.queries * row.pairs
    return body + attention + 2 * shape.vocabulary * shape.hidden * row.labels


def beside(objectives: ObjectiveSettings, base: ModelShape, teacher: ModelShape | None) -> tuple[ModelShape, ...]:
    """Return the models that read every row beside the trained one: the base model (`objectives.kl`) and the teacher, if there is one."""
    taught = teacher if objectives.distillation.teacher else None
    return (*([base] if objectives.kl else []), *([] if taught is None else [taught]))


def training_flops(shape: ModelShape, method: Method, row: RowShape, *, readers: Sequence[ModelShape] = ()) -> int:
    """Return the FLOPs of one row forward and backward (Kaplan et al. 2020, arXiv 2001.08361, section 2.1, without weights that get no gradient).

    Frozen weights are multiplied once more for the gradient of their input, trained ones twice more. What lies below the first trained
    layer is only read. `readers` read the row too (see `beside`), without virtual tokens; for each the trained model's head is walked twice more,
    for its logits and for their gradient.
    """
    share = min(method.last, shape.layers) / shape.layers if method.name == "partial" else 1.0
    body = 2 * shape.layers * linear_weights(shape) * row.tokens
    attention = 4 * shape.layers * shape.queries * row.pairs
    head = 2 * shape.vocabulary * shape.hidden * row.labels
    total = forward_flops(shape, row) + share * body + 2 * share * attention + head
    for reader in readers:
        total += forward_flops(reader, lengthened(row, -method.virtual)) + 2 * head
    if method.name in {"full", "partial"}:
        # A trained head makes its logits once more for its gradient.
        return round(total + share * body + (2 * head if method.name == "full" or method.head else 0))
    added = 0 if method.virtual else trainable_parameters(shape, method)
    return round(total + 6 * added * row.tokens)
