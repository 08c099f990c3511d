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
from metier.training.batches import Examples, Row, row_of
from metier.training.curriculum import Plan
from metier.training.objectives import Objective
from metier.training.settings import OptimizerSettings, TrainingSettings

__all__ = ["StepResult", "Watcher", "learning_rate_at", "run_steps", "to_device"]

_SHOWN = 20

_BUCKET = 1 << 23
"""Gradients that processes send to each other at once."""


class Watcher(Protocol):
    """A method that looks at every step, as one does that shares out ranks."""

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
    taught: Examples,
    plan: Plan,
    *,
    start: int,
    before: int = 0,
    total: int | None = None,
    settings: TrainingSettings,
    objectives: Sequence[tuple[float, Objective]],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    penalties: Sequence[Callable[[], torch.Tensor]] = (),
    watcher: Watcher | None = None,
) -> Iterator[StepResult]:
    """Train from step `start` to the end of the plan, yielding after each optimiser step.

    The plan may be one stage of a training of `total` steps, `before` of which came earlier: a watcher counts the whole. Every learnt token of a
    step weighs the same, whatever row, accumulation step or process it is in. `penalties` do not depend on the examples and are added once
    a step; the loss that is reported is without them. Raises ModelError, with the ids of the records, when the loss stops being a number.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in range(start, len(plan.steps)):
        began = time.perf_counter()
        rows = [to_device(row_of([taught.examples[index] for index in row]), accelerator.device) for row in plan.steps[step]]
        labels = sum(len(row.labels) for row in rows)
        rate = learning_rate_at(step, len(plan.steps), settings.peak_rate, settings.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = 0.0
        for place in range(accelerator.process_index, len(rows), accelerator.num_processes):
            # What chance does to a row depends on the row alone: not on where a run was interrupted, nor on how many processes there are.
            torch.manual_seed(_seed_of(settings.seed, before + step, place))
            value = _total(model, rows[place], objectives) / labels
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach())
        loss = _over_processes(accelerator, loss, parameters)
        if not math.isfinite(loss):
            raise ModelError(_not_finite(loss, before + step + 1, [taught.origins[index].id for row in plan.steps[step] for index in row]))
        for penalty in penalties:
            penalty().backward()  # type: ignore[no-untyped-call]
        if watcher is not None:
            watcher.watch()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.optimizer.clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if watcher is not None:
            watcher.settle(before + step + 1, before + len(plan.steps) if total is None else total)
        yield StepResult(loss, norm, rate, sum(len(row.tokens) for row in rows), labels, time.perf_counter() - began)


def _not_finite(loss: float, step: int, records: Sequence[str]) -> str:
    shown = ", ".join(records[:_SHOWN]) + (f" and {len(records) - _SHOWN} more" if len(records) > _SHOWN else "")
    remedy = "the last checkpoint is kept; look at these records, lower training.learning_rate, or set training.precision to float32"
    return f"the loss at step {step} is {loss}; the step's records: {shown}\n    -> {remedy}"


def _seed_of(seed: int, step: int, row: int) -> int:
    return ((seed * 1_000_003 + step) * 1_000_003 + row) % 2**63


def _total(model: Any, row: Row, objectives: Sequence[tuple[float, Objective]]) -> torch.Tensor:
    total = torch.zeros((), device=row.tokens.device)
    for weight, objective in objectives:
        total = total + weight * objective(model, row)
    return total


def to_device(row: Row, device: torch.device) -> Row:
    """Return a row on a device."""
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
    for together in _buckets(parameters):
        gradients = [parameter.grad for parameter in together if parameter.grad is not None]
        whole = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="sum")
        for gradient, part in zip(gradients, whole.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
    return float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), reduction="sum"))


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Yield parameters in groups that are sent together: many small ones, or one large one."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        if bucket and (sum(item.numel() for item in bucket) + parameter.numel() > _BUCKET or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
