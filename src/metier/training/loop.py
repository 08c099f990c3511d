"""The one training loop. Methods and objectives are given to it; accelerate knows the devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from metier.errors import ModelError
from metier.training.batches import Example, Row, order, pack, row_of
from metier.training.objectives import Objective
from metier.training.settings import OptimizerSettings, TrainingSettings

__all__ = ["Plan", "StepResult", "Watcher", "learning_rate_at", "plan_steps", "run_steps", "validation_loss"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which examples each optimiser step sees: `steps[i]` is a list of packed rows of example indices."""

    steps: tuple[tuple[tuple[int, ...], ...], ...]
    steps_an_epoch: int


class Watcher(Protocol):
    """A method that looks at every step, as one does that shares out ranks."""

    def penalty(self) -> torch.Tensor:
        """Return what is added to the loss of a step, once."""

    def watch(self) -> None:
        """Look at the gradients, before the optimiser has used them."""

    def settle(self, step: int, total: int) -> None:
        """Change what has to be changed after optimiser step `step` of `total`, from 1."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimiser step: mean loss in nats a learnt token, gradient norm before clipping, tokens and labels read."""

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    labels: int
    seconds: float


def plan_steps(examples: Sequence[Example], settings: TrainingSettings) -> Plan:
    """Return the steps of a training: a function of the examples, the seed and the settings alone."""
    lengths = [len(example) for example in examples]
    steps: list[tuple[tuple[int, ...], ...]] = []
    first_epoch = 0
    for epoch in range(math.ceil(settings.epochs)):
        if settings.order == "dataset":
            # Packing closes rows as they fill; a row stands where its first example does.
            rows = sorted(pack(lengths, range(len(examples)), settings.batch.row_tokens), key=lambda row: row[0])
        else:
            rows = pack(lengths, order(len(examples), settings.seed, epoch), settings.batch.row_tokens)
        wanted = math.ceil(len(rows) * min(1.0, settings.epochs - epoch))
        window = settings.batch.rows
        steps.extend(tuple(tuple(row) for row in rows[start : min(start + window, wanted)]) for start in range(0, wanted, window))
        first_epoch = first_epoch or len(steps)
    return Plan(tuple(steps), max(1, first_epoch))


def learning_rate_at(step: int, total: int, peak: float, settings: OptimizerSettings) -> float:
    """Return the learning rate of step `step` (from 0) of `total`: linear warm-up, then the schedule down to zero."""
    warm = math.ceil(total * settings.warmup)
    if step < warm:
        return peak * (step + 1) / warm
    share = (step - warm) / max(1, total - warm)
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "linear":
        return peak * (1 - share)
    return peak * (1 + math.cos(math.pi * share)) / 2


def run_steps(
    model: Any,
    examples: Sequence[Example],
    plan: Plan,
    *,
    start: int,
    settings: TrainingSettings,
    objectives: Sequence[tuple[float, Objective]],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    watcher: Watcher | None = None,
) -> Iterator[StepResult]:
    """Train from step `start` to the end of the plan, yielding after each optimiser step.

    Every learnt token of a step weighs the same, whatever row, accumulation step or process it is in. Raises ModelError
    when the loss stops being a number.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in range(start, len(plan.steps)):
        began = time.perf_counter()
        rows = [_to_device(row_of([examples[index] for index in row]), accelerator.device) for row in plan.steps[step]]
        labels = sum(len(row.labels) for row in rows)
        rate = learning_rate_at(step, len(plan.steps), settings.peak_rate, settings.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = 0.0
        for row in rows[accelerator.process_index :: accelerator.num_processes]:
            value = _total(model, row, objectives) / labels
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach())
        loss = _over_processes(accelerator, loss, parameters)
        if not math.isfinite(loss):
            raise ModelError(f"the loss at step {step + 1} is {loss}\n    -> lower training.learning_rate, or set training.precision to float32")
        if watcher is not None:
            watcher.penalty().backward()  # type: ignore[no-untyped-call]
            watcher.watch()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.optimizer.clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if watcher is not None:
            watcher.settle(step + 1, len(plan.steps))
        yield StepResult(loss, norm, rate, sum(len(row.tokens) for row in rows), labels, time.perf_counter() - began)


def _total(model: Any, row: Row, objectives: Sequence[tuple[float, Objective]]) -> torch.Tensor:
    total = torch.zeros((), device=row.tokens.device)
    for weight, objective in objectives:
        total = total + weight * objective(model, row)
    return total


def _to_device(row: Row, device: torch.device) -> Row:
    if device.type == "cpu":
        return row
    kinds = None if row.kinds is None else row.kinds.to(device)
    return Row(row.tokens.to(device), row.positions.to(device), row.lengths, row.sources.to(device), row.labels.to(device), kinds)


def _over_processes(accelerator: Accelerator, loss: float, parameters: Sequence[torch.nn.Parameter]) -> float:
    """Add up gradients and loss over processes: each has its own rows, already divided by the step's learnt tokens."""
    if accelerator.num_processes == 1:
        return loss
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = accelerator.reduce(parameter.grad, reduction="sum")
    return float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), reduction="sum"))


@torch.no_grad()
def validation_loss(
    model: Any, examples: Sequence[Example], objective: Objective, *, row_tokens: int, device: torch.device, seen: Callable[[int], None]
) -> float:
    """Return the mean loss in nats a learnt token; `seen` is told how many examples each row held."""
    total, labels = 0.0, 0
    for indices in pack([len(example) for example in examples], range(len(examples)), row_tokens):
        row = _to_device(row_of([examples[index] for index in indices]), device)
        total += float(objective(model, row))
        labels += len(row.labels)
        seen(len(indices))
    return total / labels
