"""What moving away from the base model costs: its distance, and which weights matter to general examples, measured once before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from metier.models.importance import InPlace, Moving, consolidation, measure_fisher, moving_weights
from metier.models.methods import Tuned, switched_off
from metier.progress import Progress
from metier.store import write_atomically
from metier.training.batches import Row, order, row_of
from metier.training.examples import Examples
from metier.training.gather import to_device
from metier.training.objectives import Losses
from metier.training.settings import ObjectiveSettings

__all__ = ["Charges"]

_EXAMPLES = 64
_TASK = "weights that matter"


class Charges:
    """The penalties on moving weights that the stages of a training ask for: `objectives.start` and `objectives.ewc`."""

    def __init__(self, model: Any, tuned: Tuned | None, asked: Sequence[ObjectiveSettings], *, losses: Losses, file: Path, device: torch.device) -> None:
        """`tuned` None: every weight is trained in its own place. `losses` are what general examples lose, `file` keeps what was measured.

        Raises ModelError if weights that matter are asked for of a method that does not move weights.
        """
        self._model, self._tuned, self._losses, self._file, self._device = model, tuned, losses, file, device
        self._weighs = any(objectives.ewc for objectives in asked)
        # A copy of every weight: only where something is measured from it.
        self._kept = InPlace(model) if tuned is None and (self._weighs or any(objectives.start for objectives in asked)) else None
        self._weights: Mapping[str, Moving] = {}
        if self._weighs:
            self._weights = moving_weights(model) if self._kept is None else self._kept.weights
        self._fisher: dict[str, torch.Tensor] = {}

    def measure(self, taught: Examples, general: Callable[[], Sequence[int]], seed: int, progress: Progress, *, keep: bool) -> None:
        """Measure which weights matter, if that is asked for, on at most 64 of the general examples, or take what an earlier attempt has measured.

        Nothing has been trained yet. `keep` it for the next attempt.
        """
        if not self._weighs:
            return
        if self._file.exists():
            self._fisher = {name: value.to(self._device) for name, value in load_file(self._file).items()}
            return
        places = general()
        chosen = [places[place] for place in order(len(places), seed, "ewc")[:_EXAMPLES]]
        rows = [to_device(row_of([taught.examples[index]]), self._device) for index in chosen]
        progress.start(_TASK, len(rows), "examples")
        self._model.eval()
        with nullcontext() if self._tuned is None else switched_off(self._tuned):
            self._fisher = measure_fisher(self._weights, rows, self._loss, lambda: progress.advance(_TASK))
        progress.finish(_TASK)
        if keep:
            write_atomically(self._file, serialize({name: value.cpu().contiguous() for name, value in self._fisher.items()}))

    def _loss(self, row: Row) -> tuple[torch.Tensor, int]:
        return self._losses(self._model, row).sum(), len(row.labels)

    def of(self, objectives: ObjectiveSettings) -> list[Callable[[], torch.Tensor]]:
        """Return the penalties of a stage, each to be differentiated once a step."""
        found: list[Callable[[], torch.Tensor]] = []
        measured = self._tuned if self._kept is None else self._kept
        if objectives.start and measured is not None:
            found.append(lambda: objectives.start * measured.distance())
        if objectives.ewc:
            found.append(lambda: objectives.ewc * consolidation(self._weights, self._fisher))
        return found
