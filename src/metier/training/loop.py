"""The one training loop. Methods and objectives are given to it; accelerate knows the devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from metier.errors import ModelError
from metier.training.curriculum import Plan
from metier.training.examples import Examples
from metier.training.gather import Gather
from metier.training.settings import OptimizerSettings, TrainingSettings

__all__ = ["StepResult", "Watcher", "adamw", "learning_rate_at", "run_steps"]

_SHOWN = 20


class Watcher(Protocol):
    """What looks at every step."""

    def watch(self) -> None:
        """Look at the gradients, before they are clipped and used."""

    def settle(self, step: int, total: int) -> None:
        """Change, or look at, what optimiser step `step` of `total` (from 1) has made."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimiser step: mean loss in nats a learnt token, gradient norm before clipping, tokens and labels read."""

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    labels: int
    seconds: float
    unusable: int = 0
    """Units of a private step that added nothing."""


def adamw(parameters: Iterable[torch.Tensor], settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a stage, AdamW (Loshchilov and Hutter, 2019, arXiv 1711.05101)."""
    options = settings.optimizer
    return torch.optim.AdamW(list(parameters), lr=settings.peak_rate, betas=options.betas, weight_decay=options.weight_decay, fused=True)


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
    taught: Examples,
    plan: Plan,
    *,
    start: int,
    settings: TrainingSettings,
    gather: Gather,
    optimizer: torch.optim.Optimizer,
    before: int = 0,
    total: int | None = None,
    penalties: Sequence[Callable[[], torch.Tensor]] = (),
    watchers: Sequence[Watcher] = (),
    clip: Callable[[Sequence[torch.Tensor], float], float] | None = None,
) -> Iterator[StepResult]:
    """Train from step `start` to the end of the plan, yielding after each optimiser step.

    The plan may be one stage of a training of `total` steps, `before` of which came earlier: watchers count the whole. `penalties` do not
    depend on the examples and are added once a step; the loss that is reported is without them. `clip` shortens the gradient and returns the norm
    that it had, where its parts lie apart. Raises ModelError, with the ids of the
    records, when the loss stops being a number.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shorten = _clip if clip is None else clip
    for step in range(start, len(plan.steps)):
        began = time.perf_counter()
        rate = learning_rate_at(step, len(plan.steps), settings.peak_rate, settings.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        gathered = gather(taught, plan.steps[step], before + step)
        if not math.isfinite(gathered.loss):
            raise ModelError(_not_finite(gathered.loss, before + step + 1, [taught.origins[index].id for row in plan.steps[step] for index in row]))
        for penalty in penalties:
            penalty().backward()  # type: ignore[no-untyped-call]
        for watcher in watchers:
            watcher.watch()
        norm = shorten(parameters, settings.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for watcher in watchers:
            watcher.settle(before + step + 1, before + len(plan.steps) if total is None else total)
        yield StepResult(gathered.loss, norm, rate, gathered.tokens, gathered.labels, time.perf_counter() - began, gathered.unusable)


def _clip(parameters: Sequence[torch.Tensor], most: float) -> float:
    return float(torch.nn.utils.clip_grad_norm_(parameters, most))


def _not_finite(loss: float, step: int, records: Sequence[str]) -> str:
    shown = ", ".join(records[:_SHOWN]) + (f" and {len(records) - _SHOWN} more" if len(records) > _SHOWN else "")
    remedy = "the last checkpoint is kept; look at these records, lower training.learning_rate, or set training.precision to float32"
    return f"the loss at step {step} is {loss}; the step's records: {shown}\n    -> {remedy}"
