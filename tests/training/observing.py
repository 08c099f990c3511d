"""What trainings say, refuse and keep, as tests look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from metier.errors import ConfigError
from metier.progress import Silent
from metier.project import load_project

HEAD = "metier: 1\nproject: p\npack: example\nsources:\n  - {path: data.jsonl, licence: CC0-1.0, columns: {question: a, answer: a}}\n"


def refused(folder: Path, training: str) -> str:
    """Return what is said of a project whose `training` cannot be."""
    (folder / "data.jsonl").write_text('{"a": "b"}\n')
    (folder / "metier.yaml").write_text(f"{HEAD}training: {training}\n")
    with pytest.raises(ConfigError) as caught:
        load_project(folder)
    return str(caught.value)


class Said(Silent):
    """A progress that notes what is said, and interrupts a training at its step number `stop` (0: never)."""

    def __init__(self, stop: int = 0) -> None:
        self.said: list[str] = []
        self._left = stop

    def say(self, message: str) -> None:
        self.said.append(message)

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        if task == "training" and note.startswith("loss"):
            self._left -= 1
            if self._left == 0:
                raise InterruptedError


@contextmanager
def saved_by_autograd(model: Any) -> Iterator[dict[int, int]]:
    """Fill the bytes of what autograd saves inside the block, by storage; the model's own weights are left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found
