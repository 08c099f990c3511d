"""What `auto` settings become on given data and this machine: sizes of the trained part, ranks of single layers, the format of frozen weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from metier.digest import canonical_json
from metier.models.lora import linear_layers
from metier.models.methods import METHODS, MethodName, Shape
from metier.models.precision import fastest_dtype
from metier.models.sensitivity import allocate, layer_gradients
from metier.store import Workspace, write_atomically
from metier.training.batches import Row, order, row_of
from metier.training.examples import Examples
from metier.training.gather import to_device
from metier.training.launch import processes
from metier.training.settings import TrainingSettings
from metier.training.support import whole_first

__all__ = ["Effective", "placed", "read_later", "resolve", "settled_for_labels", "share_out", "virtual_tokens"]

_SAMPLE = 32
"""Examples whose gradients share out ranks."""

_MOST = 4
"""A layer gets at most so many times the rank."""

_ANSWERS, _STEPS_OF_PASS = 32, 16
"""Answers of a step where each text has one, and steps that a pass keeps. Devlin et al. (2019, arXiv 1810.04805, A.3) tune encoders with 16 or 32 texts."""


@dataclass(frozen=True, slots=True)
class Effective:
    """The method, how large its trained part is, and the format of the frozen weights."""

    method: MethodName
    shape: Shape
    dtype: torch.dtype

    @property
    def sizes(self) -> dict[str, Any]:
        """Rank and alpha, None where the method has no such thing."""
        low_rank = METHODS[self.method].low_rank
        return {"rank": self.shape.rank if low_rank else None, "alpha": self.shape.alpha if low_rank else None}

    @property
    def precision(self) -> str:
        """Name of the format."""
        return str(self.dtype).removeprefix("torch.")


def resolve(settings: TrainingSettings, method: MethodName, examples: int, device: str) -> Effective:
    """Return what the settings become for a method on so many examples."""
    formats = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    given = settings.adaptation
    shape = Shape(
        rank=given.rank_for(examples),
        alpha=given.alpha_for(examples),
        dropout=given.dropout,
        targets=given.targets,
        ranks=given.ranks,
        layers=given.layers,
        head=given.head,
        size=given.size,
        tokens=given.tokens,
        gate=given.gate,
    )
    return Effective(method, shape, fastest_dtype(device) if settings.precision == "auto" else formats[settings.precision])


def settled_for_labels(settings: TrainingSettings, method: MethodName, taught: Examples, *, encoder: bool, whole: bool) -> TrainingSettings:
    """Return the settings with what `auto` becomes for labels: the method's rate for them, and the rows of a step.

    `whole`: each text has one answer. Then a row of long texts has a handful of answers, and a step of one row hardly says where to go: it gets rows
    for about 32 answers, as long as a pass keeps 16 steps.
    """
    changes: dict[str, Any] = {}
    if settings.learning_rate == "auto":
        changes["learning_rate"] = METHODS[method].rate_for_labels(encoder=encoder)
    if settings.batch.rows == "auto" and whole:
        tokens = int(taught.lengths.sum())
        wanted = math.ceil(_ANSWERS * tokens / len(taught) / settings.batch.row_tokens)
        rows = max(1, min(wanted, tokens // settings.batch.row_tokens // _STEPS_OF_PASS))
        changes["batch"] = settings.batch.model_copy(update={"rows": rows})
    return settings.model_copy(update=changes)


def virtual_tokens(settings: TrainingSettings, method: MethodName) -> int:
    """Return how many virtual tokens a method puts before each example."""
    return settings.adaptation.tokens if METHODS[method].family == "virtual" else 0


def read_later(settings: TrainingSettings, workspace: Workspace, *, sharded: bool) -> bool:
    """Return whether weights that are shared out are read share by share; where they cannot be, that and the reason is said."""
    if not sharded or processes() == 1:
        return False
    reasons = whole_first(settings)
    for reason in reasons:
        workspace.progress.say(f"note: every process loads the whole base model before its weights are shared out ({reason})")
    return not reasons


def placed(model: Any, device: torch.device) -> Any:
    """Return a model on its device; one whose weights are still on disk gets there as they are read."""
    return model if hasattr(model, "stored") else model.to(device)


def share_out(
    effective: Effective, model: Any, taught: Examples, settings: TrainingSettings, loss: Callable[[Any, Row], torch.Tensor], workspace: Workspace
) -> Effective:
    """Return the same with the ranks of single layers: those that the settings give, or those that the gradients of `loss` on a sample say.

    What was worked out is kept in the workspace for a later attempt.
    """
    if settings.adaptation.allocate == "even":
        return effective
    shape, file = effective.shape, workspace.folder / "ranks.json"
    if file.exists():
        return replace(effective, shape=replace(shape, ranks=json.loads(file.read_bytes())))
    names = linear_layers(model.eval().requires_grad_(False), shape.targets)
    chosen = order(len(taught), settings.seed, "ranks")[:_SAMPLE]
    device = next(model.parameters()).device
    rows = [to_device(row_of([taught.examples[index]]), device) for index in chosen]
    task, progress = "sensitivity", workspace.progress
    progress.start(task, len(rows), "examples")
    gradients = layer_gradients(model, names, rows, lambda row: loss(model, row), lambda: progress.advance(task))
    ranks = allocate(gradients, rank=shape.rank, most=_MOST * shape.rank)
    progress.finish(task, f"ranks of {min(ranks.values())} to {max(ranks.values())}")
    write_atomically(file, canonical_json(ranks))
    return replace(effective, shape=replace(shape, ranks=ranks))
