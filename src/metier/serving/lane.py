"""A lane: one model that steps as a batch, with its own cache of keys and values.

All low-rank adapters stand beside the base model in one lane. An adapter of another method has a lane of its own, whose model shares the
base's tensors and holds only what the method adds or changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metier.models import GenerationSettings, LocalModel
from metier.models.attention import Cache, Prefill
from metier.models.head import next_logits
from metier.models.stack import Gate
from metier.models.step import Step, padded
from metier.serving.text import Writer
from metier.serving.ticket import Ticket

__all__ = ["Lane", "Request"]


@dataclass(slots=True)
class Request:
    """A question on its way: `place` is the release's number in the engine, `tokens` the question's without virtual ones."""

    place: int
    tokens: list[int]
    settings: GenerationSettings
    ticket: Ticket
    writer: Writer
    generator: torch.Generator
    asked: float
    began: float = 0.0
    first: float = 0.0
    count: int = 0
    last: int = 0


class Lane:
    """Rows of one model; active ones stand at the front of the cache, which holds `rows` sequences of at most `context` tokens."""

    def __init__(self, model: LocalModel, places: Sequence[int], gate: Gate | None, *, rows: int, context: int) -> None:
        self.active: list[Request] = []
        self.virtual = model.tuned.virtual if model.tuned is not None else 0
        self._model = model
        self._number = {place: number for number, place in enumerate(places)}
        self._gate = gate
        self._cache = Cache(rows, context)

    def read(self, request: Request) -> torch.Tensor:
        """Put the question of the last active request into its row of the cache and return the logits [1, vocabulary] of the first token."""
        tokens = [*(-1 - number for number in range(self.virtual)), *request.tokens]
        self._choose([request.place] * len(tokens), 0)
        states = self._model.hidden(tokens, range(len(tokens)), Prefill([len(tokens)], self._cache, [len(self.active) - 1]))
        return next_logits(states[-1:], self._model.head, self._model.softcap)

    def step(self) -> torch.Tensor:
        """Return the logits [rows, vocabulary] of one more token for every active row."""
        rows = len(self.active)
        more = padded(rows) - rows
        tokens = [request.last for request in self.active] + [0] * more
        self._choose([request.place for request in self.active], more)
        positions = self._cache.lengths[:rows] + [0] * more
        states = self._model.hidden(tokens, positions, Step(self._cache, rows))
        return next_logits(states, self._model.head, self._model.softcap)[:rows]

    def _choose(self, places: Sequence[int], more: int) -> None:
        if self._gate is not None:
            self._gate.choose([self._number[place] for place in places] + [0] * more)

    def free(self, row: int) -> None:
        """Give a row back: the last active row takes its place, so that active rows stay together at the front."""
        last = len(self.active) - 1
        if row != last:
            # Emptied first: the row that moves in may be shorter than the one that was there.
            self._cache.clear(row)
            self._cache.move(last, row)
            self.active[row] = self.active[last]
        self._cache.clear(last)
        self.active.pop()

    def drop(self, requests: Sequence[Request]) -> None:
        """Give the rows of failed requests back empty, whatever the failed step left in them."""
        for row in range(len(self.active) - 1, -1, -1):
            if any(self.active[row] is request for request in requests):
                self._cache.lengths[row] = self._cache.capacity
                self.free(row)
