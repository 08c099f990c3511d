"""Which weights matter to general examples: measured once, before training, and kept beside the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from metier.models.importance import adapted_layers, consolidation, measure_fisher
from metier.models.methods import Tuned
from metier.progress import Progress
from metier.store import write_atomically
from metier.training.batches import Row, order, row_of
from metier.training.examples import Examples
from metier.training.gather import to_device
from metier.training.objectives import cross_entropy

__all__ = ["Consolidation"]

_EXAMPLES = 64
_TASK = "weights that matter"


class Consolidation:
    """The penalty on moving weights that general examples need."""

    def __init__(self, model: Any, tuned: Tuned, *, file: Path, device: torch.device) -> None:
        """Raise ModelError for a method that does not move weights."""
        self._model, self._tuned, self._file, self._device = model, tuned, file, device
        self._layers = adapted_layers(model)
        self._fisher: dict[str, torch.Tensor] = {}

    def measure(self, taught: Examples, general: Sequence[int], seed: int, progress: Progress, *, keep: bool) -> None:
        """Measure on at most 64 of the general examples, or take what an earlier attempt has measured; `keep` it for the next."""
        if self._file.exists():
            self._fisher = {name: value.to(self._device) for name, value in load_file(self._file).items()}
            return
        chosen = [general[place] for place in order(len(general), seed, "ewc")[:_EXAMPLES]]
        rows = [to_device(row_of([taught.examples[index]]), self._device) for index in chosen]
        progress.start(_TASK, len(rows), "examples")
        self._model.eval()
        self._tuned.enable(False)
        try:
            self._fisher = measure_fisher(self._layers, rows, self._loss, lambda: progress.advance(_TASK))
        finally:
            self._tuned.enable(True)
        progress.finish(_TASK)
        if keep:
            write_atomically(self._file, serialize({name: value.cpu().contiguous() for name, value in self._fisher.items()}))

    def _loss(self, row: Row) -> tuple[torch.Tensor, int]:
        return cross_entropy(self._model, row), len(row.labels)

    def penalty(self) -> torch.Tensor:
        """Return the penalty, in nats a token of general text, to be differentiated."""
        return consolidation(self._layers, self._fisher)
