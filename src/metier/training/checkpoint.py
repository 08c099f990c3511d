"""The state of a training, saved so that an interrupted run continues with the very same numbers.

A checkpoint is a folder `checkpoint-STEP` (of a later stage `checkpoint-STEP-STAGE`) with `tensors.safetensors` (adapter, optimiser, random state)
and `state.json`; it is written aside and renamed into place, so one that exists is whole. The newest two are kept, and the best.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from metier.models.saved import file_order, stream_tensors
from metier.store import remove_folder, write_atomically
from metier.training.distribution import Distribution

__all__ = ["Position", "latest", "restore", "save"]

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_KEPT = 2


@dataclass(slots=True)
class Position:
    """Where a training is, beside its tensors. `best_loss` and what follows it are those of the present stage."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    metrics_bytes: int = 0
    best: float | None = None
    """What the best measurement is compared by: the lower, the better."""
    best_loss: float | None = None
    best_score: float | None = None
    best_step: int | None = None
    worse_in_a_row: int = 0
    stopped: bool = False
    stage: int = 0
    groups: dict[str, float] | None = None
    """The validation loss of each group when the present stage began."""
    ended: list[dict[str, Any]] = field(default_factory=list)
    """What is to be said of the stages that have ended."""


def save(
    folder: Path, position: Position, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, weights: Distribution, *, leads: bool
) -> None:
    """Write a checkpoint of parameters and what else a method keeps, whole wherever their parts lie: the process that leads writes it.

    Raises StoreError if the disk does not take it; earlier checkpoints stay as they are.
    """
    tensors = {"random": torch.get_rng_state()}
    for name, parameter in parameters.items():
        tensors[f"parameter.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach()
    if not leads:
        for name in file_order(tensors):
            weights.whole(tensors[name])
        return
    # A stage begins at the step where the one before it ended: a name of its own, so that neither is ever taken away for the other.
    name = f"checkpoint-{position.step:08d}" + (f"-{position.stage:04d}" if position.stage else "")
    aside, target = folder / ".writing", folder / name
    remove_folder(aside)
    stream_tensors(aside / _TENSORS, tensors, weights.whole)
    write_atomically(aside / _STATE, json.dumps(asdict(position)).encode())
    remove_folder(target)
    aside.rename(target)
    newest = _all(folder)[-_KEPT:]
    for path in _all(folder):
        if path not in newest and _step(path) != position.best_step:
            remove_folder(path)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d{8}(-\d{4})?", path.name))


def latest(folder: Path, step: int | None = None) -> Path | None:
    """Return the newest checkpoint (or that of a step), or None."""
    found = [path for path in _all(folder) if step is None or _step(path) == step]
    return found[-1] if found else None


def restore(path: Path, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer | None, weights: Distribution) -> Position:
    """Put a checkpoint's tensors back into the adapter, the optimiser (if given) and the random state."""
    state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
    # Tensor by tensor: where each process holds a part, none has room for all.
    with safe_open(path / _TENSORS, "pt") as file, torch.no_grad():
        known = file.keys()
        for name, parameter in parameters.items():
            parameter.copy_(weights.share(file.get_tensor(f"parameter.{name}"), parameter))
            if optimizer is None:
                continue
            prefix = "optimizer."
            slots = [key for key in known if key.startswith(prefix) and key.endswith(f".{name}")]
            if slots:
                optimizer.state[parameter] = {key[len(prefix) : -len(name) - 1]: weights.share(file.get_tensor(key), parameter) for key in slots}
        if optimizer is not None:
            torch.set_rng_state(file.get_tensor("random"))
    return Position(**state)
