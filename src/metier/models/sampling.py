"""Choosing the next token: greedy, or drawn from the nucleus with a generator of the answer's own."""

from __future__ import annotations

import torch

from metier.models.interface import GenerationSettings

__all__ = ["pick", "seeded"]

_FIRST = 1024
"""Tokens that are sorted at first; nearly every nucleus is smaller, and sorting 262,144 takes 15 ms."""


def seeded(seed: int, place: int = 0) -> torch.Generator:
    """Return the generator of the answer at `place` of a list that is asked with `seed`."""
    return torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63)


def pick(logits: torch.Tensor, settings: GenerationSettings, generator: torch.Generator) -> int:
    """Return a token for logits [vocabulary] (fp32, as unnormalised natural-log probabilities).

    Nucleus sampling (Holtzman et al., 2020, arXiv 1904.09751): the smallest set whose mass reaches top_p. One uniform number is
    taken from the generator for each token, so an answer depends on its own seed only.
    """
    if settings.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.cpu().double() / settings.temperature, dim=-1)
    if settings.top_p >= 1:
        return _draw(probabilities, generator)
    ordered, places = probabilities.topk(min(_FIRST, len(probabilities)))
    before = ordered.cumsum(0) - ordered
    if float(before[-1]) < settings.top_p:
        ordered, places = probabilities.sort(descending=True)
        before = ordered.cumsum(0) - ordered
    return int(places[_draw(ordered[before < settings.top_p], generator)])


def _draw(weights: torch.Tensor, generator: torch.Generator) -> int:
    mass = weights.cumsum(0)
    drawn = torch.rand(1, generator=generator, dtype=torch.float64) * mass[-1]
    return min(int(torch.searchsorted(mass, drawn, right=True)), len(weights) - 1)
