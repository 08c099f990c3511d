"""Ten steps of the real loop on real rows: how fast this machine trains, and what its memory is at the peak."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator

from metier.models import Base, load_weights
from metier.models.methods import Shape, Tuned, Watched, attach_method
from metier.progress import SILENT, Progress
from metier.training.curriculum import Plan
from metier.training.examples import Examples
from metier.training.gather import Summing
from metier.training.loop import StepResult, run_steps
from metier.training.objectives import Objective, answers_objective
from metier.training.planning.hardware import resident_bytes
from metier.training.planning.memory import Means, RowShape, memory
from metier.training.planning.methods import Method
from metier.training.planning.shape import ModelShape
from metier.training.planning.work import beside, row_shape, training_flops
from metier.training.settings import TrainingSettings
from metier.training.steps import Steps

__all__ = ["STEPS", "Calibration", "added", "calibrate", "chosen_rows", "spread_rows", "timed"]

STEPS = 10
TASK = "calibration"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured: FLOP/s of the loop, seconds and tokens of the measured steps, and the bytes that the training added at its peak.

    `holes` is that less what was counted; both are None where the process had held more memory before (the peak cannot be told then).
    """

    steps: int
    flops: float
    seconds: float
    tokens: int
    peak: int | None
    holes: int | None

    def as_facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def chosen_rows(plan: Plan, taught: Examples, shape: ModelShape, method: Method, means: Means) -> list[tuple[int, ...]]:
    """Return the rows to measure: the one that needs most memory at either end, between them rows spread over the work of a row.

    The first is only there to warm up. There are fewer than `STEPS` + 1 if the plan has fewer rows.
    """
    return spread_rows(plan, taught, work=lambda row: training_flops(shape, method, row), needed=lambda row: memory(shape, method, row, means).total)


def spread_rows(plan: Plan, taught: Examples, *, work: Callable[[RowShape], float], needed: Callable[[RowShape], float]) -> list[tuple[int, ...]]:
    """Return the rows to measure (see `chosen_rows`), by what says the work of a row and the memory that it needs."""
    rows = list(plan.steps.rows)
    shapes = [row_shape(taught, row) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: work(shapes[place]))
    largest = max(range(len(rows)), key=lambda place: needed(shapes[place]))
    count = min(STEPS - 1, len(rows))
    spread = [order[round((number + 0.5) / count * len(order) - 0.5)] for number in range(count)]
    return [rows[place] for place in (largest, largest, *spread)][: STEPS + 1]


def calibrate(
    base: Base,
    taught: Examples,
    rows: Sequence[tuple[int, ...]],
    settings: TrainingSettings,
    shape: ModelShape,
    *,
    method: Method,
    means: Means,
    progress: Progress = SILENT,
) -> Calibration:
    """Train on these rows (the first warms up), throw the result away and return what was measured.

    Raises ModelError if the model cannot be loaded or the loss is no number.
    """
    before = resident_bytes()
    dtype = torch.bfloat16 if means.precision == 2 else torch.float32
    model: Any = load_weights(base, dtype)
    sizes: dict[str, Any] = {"layers": method.last, "head": method.head, "size": method.size, "tokens": method.tokens, "ranks": method.ranks}
    sizes |= {"rank": method.rank, "alpha": 2.0 * method.rank, "dropout": settings.adaptation.dropout, "targets": method.targets}
    tuned = attach_method(model, method.name, Shape(**sizes), seed=settings.seed)
    measured = timed(model, taught, rows, settings, answers_objective(settings.objectives, tuned), tuned=tuned, progress=progress)
    after = resident_bytes()
    del model, tuned
    gc.collect()
    shapes = [row_shape(taught, row) for row in rows]
    counted = measured[1:] or measured
    readers = beside(settings.objectives, shape, None)
    work = sum(training_flops(shape, method, item, readers=readers) for item in shapes[-len(counted) :])
    seconds = sum(result.seconds for result in counted)
    peak = added(before, after)
    holes = None
    if peak is not None:
        # One row a step is measured; what a second row's gradients add is counted, not measured.
        alone = replace(means, rows=1)
        known = max((memory(shape, method, item, alone) for item in shapes), key=lambda item: item.total)
        holes = peak - (known.total - known.holes)
    return Calibration(len(counted), work / seconds, seconds, sum(result.tokens for result in counted), peak, holes)


def timed(
    model: Any,
    taught: Examples,
    rows: Sequence[tuple[int, ...]],
    settings: TrainingSettings,
    objective: Objective,
    *,
    tuned: Tuned | None,
    progress: Progress = SILENT,
) -> list[StepResult]:
    """Train a model on these rows, one a step, and return what each step took. The first warms up."""
    accelerator = Accelerator()
    model = model.to(accelerator.device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.peak_rate, betas=settings.optimizer.betas, fused=True)
    plan = Plan(Steps((row,) for row in rows), len(rows))
    gather = Summing(model, objective, parameters, accelerator, seed=settings.seed)
    watchers = [tuned] if isinstance(tuned, Watched) else []
    progress.start(TASK, len(rows), "steps")
    measured = []
    for result in run_steps(taught, plan, start=0, settings=settings, gather=gather, optimizer=optimizer, watchers=watchers):
        measured.append(result)
        progress.advance(TASK, 1, f"{result.tokens / result.seconds:.0f} tokens/s")
    progress.finish(TASK)
    return measured


def added(before: tuple[int, int] | None, after: tuple[int, int] | None) -> int | None:
    """Return the bytes that a training added at its peak; None where the process had held more before."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if before is None or after is None or after[1] <= before[1]:
        return None
    return after[1] - before[0]
