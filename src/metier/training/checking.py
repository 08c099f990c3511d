"""The loss on the validation examples, example by example, so that it can be shown by group and by length and has an error of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from metier.training.batches import pack, row_at
from metier.training.distribution import Distribution, Replicated
from metier.training.examples import Examples, Origin
from metier.training.gather import to_device
from metier.training.objectives import Losses

__all__ = ["Checked", "check"]


@dataclass(frozen=True, slots=True)
class Checked:
    """For each validation example the summed loss in nats, the learnt tokens (or labels) and the tokens read."""

    losses: tuple[float, ...]
    labels: tuple[int, ...]
    tokens: tuple[int, ...]

    def at(self, places: Sequence[int]) -> Checked:
        """Return what was found for the examples at these places."""
        return Checked(*(tuple(values[place] for place in places) for values in (self.losses, self.labels, self.tokens)))  # type: ignore[arg-type]

    def mean(self, places: Sequence[int] | None = None) -> float:
        """Return the mean loss in nats a learnt token of the examples at these places (default: all)."""
        places = range(len(self.losses)) if places is None else places
        return math.fsum(self.losses[place] for place in places) / sum(self.labels[place] for place in places)

    def error(self, places: Sequence[int] | None = None) -> float:
        """Return the standard error of that mean: examples are the sampling unit, since the tokens of one are not independent.

        It is the error of a ratio (Cochran, Sampling Techniques, 1977, 2.11): sqrt(n / (n - 1) sum (l_i - m k_i)^2) / sum k_i.
        """
        places = range(len(self.losses)) if places is None else places
        if len(places) < 2:
            return math.inf
        mean = self.mean(places)
        squares = math.fsum((self.losses[place] - mean * self.labels[place]) ** 2 for place in places)
        return math.sqrt(squares * len(places) / (len(places) - 1)) / sum(self.labels[place] for place in places)

    def by_group(self, origins: Sequence[Origin]) -> dict[str, float]:
        """Return the mean loss of each task, with its domain before it where there are several."""
        several = len({origin.domain for origin in origins}) > 1
        return self._by([f"{origin.domain}/{origin.task}" if several else origin.task for origin in origins])

    def by_length(self) -> dict[str, float]:
        """Return the mean loss of examples of up to 32, 64, 128, ... tokens."""
        bounds = [max(32, 1 << (count - 1).bit_length()) for count in self.tokens]
        return {f"to {bound}": loss for bound, loss in self._by(bounds).items()}

    def _by(self, keys: Sequence[Any]) -> dict[Any, float]:
        return {key: self.mean([place for place, found in enumerate(keys) if found == key]) for key in sorted(set(keys))}


@torch.no_grad()
def check(
    model: Any,
    checks: Examples,
    losses: Losses,
    *,
    row_tokens: int,
    accelerator: Accelerator,
    seen: Callable[[int], None],
    weights: Distribution | None = None,
) -> Checked:
    """Measure a model on validation examples, each process on its own rows; `seen` is told how many examples each row held.

    `weights` says how they lie over the processes; None: whole in each.
    """
    lengths = checks.lengths.tolist()
    lying = Replicated(accelerator) if weights is None else weights
    sums = torch.zeros(len(lengths), dtype=torch.float32)
    counts = torch.zeros(len(lengths), dtype=torch.int64)
    rows = [(row_at(checks, indices), indices) for indices in pack(lengths, range(len(lengths)), row_tokens)]
    owned = [torch.tensor(indices)[row.owners] for row, indices in rows]
    for places in owned:
        counts.index_add_(0, places, torch.ones_like(places))
    for place, own in lying.turns(len(rows)):
        found = lying.call(model, losses, to_device(rows[place][0], accelerator.device)).cpu().float()
        if own:
            sums.index_add_(0, owned[place], found)
            seen(len(rows[place][1]))
    lying.rest(model)
    if accelerator.num_processes > 1:
        # An example is in one row and so at one process: the sums of the others are zero.
        sums = accelerator.reduce(sums.to(accelerator.device), reduction="sum").cpu()
    return Checked(tuple(sums.tolist()), tuple(counts.tolist()), tuple(lengths))
