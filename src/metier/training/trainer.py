"""Steps, validation, metrics and checkpoints of one training, stage after stage."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from metier.jackknife import Score
from metier.models.lora import set_dropout
from metier.models.methods import Tuned, Watched
from metier.progress import Progress
from metier.store import Workspace, remove_folder, write_atomically
from metier.training.checking import Checked, check
from metier.training.checkpoint import Position, latest, restore, save
from metier.training.consolidate import Charges
from metier.training.curriculum import Course, Stage, general_of
from metier.training.gather import Gather, Summing
from metier.training.loop import StepResult, Watcher, adamw, run_steps
from metier.training.monitor import FILE as DIAGNOSTICS
from metier.training.monitor import Monitor
from metier.training.objectives import Losses, Objective
from metier.training.page import Page
from metier.training.private import PrivateSteps, Promise
from metier.training.scoring import Doubt, Scorer
from metier.training.settings import ObjectiveSettings, TrainingSettings
from metier.training.sharded import distribute
from metier.training.steps import Step
from metier.training.trackers import Trackers

__all__ = ["METRICS", "TASK", "Judge", "Trainer"]

TASK = "training"
METRICS = "metrics.jsonl"

Answer = TypeVar("Answer")

Judge: TypeAlias = Callable[[int, Checked, Score | None], bool]
"""Is told the step of each validation, what was found for the examples of its stage and, by score, the score; says whether the training ends
there, as pruned."""


class Trainer:
    """One training; its state is in the workspace.

    `objective` makes what is minimised from the objectives of a stage; `losses` is what validation measures, and `score` what it may choose by,
    where more is better unless `lower` is set. `doubt` looks at what has been taught.
    """

    def __init__(
        self,
        model: Any,
        course: Course,
        settings: TrainingSettings,
        workspace: Workspace,
        accelerator: Accelerator,
        *,
        objective: Callable[[ObjectiveSettings], Objective],
        losses: Losses,
        tuned: Tuned | None = None,
        promise: Promise | None = None,
        score: Scorer | None = None,
        lower: bool = False,
        doubt: Doubt | None = None,
        sharded: bool = False,
    ) -> None:
        self.model = model
        # Before anything else takes hold of the parameters: sharing them out makes others of them.
        self.weights = distribute(model, accelerator, sharded=sharded)
        self.objective, self.losses_of, self.score_of, self.lower, self.doubt = objective, losses, score, lower, doubt
        self.doubts: list[str] = []
        self.course = course
        self.tuned = tuned
        self.watcher = tuned if isinstance(tuned, Watched) else None
        self.judge: Judge | None = None
        self.pruned = False
        self.settings = settings
        self.accelerator = accelerator
        self.progress: Progress = workspace.progress
        self.checkpoints = workspace.folder / "checkpoints"
        self.metrics = workspace.folder / METRICS
        self.parameters: dict[str, torch.Tensor] = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.trainable = sum(parameter.numel() for parameter in self.parameters.values())
        self.stages = course.stages
        self.optimizer = adamw(self.parameters.values(), self.stages[0].settings)
        self.kept = self.parameters | (self.watcher.kept() if self.watcher else {})
        """What a checkpoint holds: the parameters, and what a method keeps beside them."""
        asked = [stage.settings.objectives for stage in self.stages]
        file = self.metrics.with_name("fisher.safetensors")
        self.charges = Charges(model, tuned, asked, losses=losses, file=file, device=accelerator.device)
        self.private = None if promise is None else PrivateSteps(model, promise, self.parameters, accelerator)
        self.position = Position()
        self.losses: list[float] = []
        self.unusable = 0
        self.groups: dict[str, float] = {}
        self.scored: Score | None = None
        self.monitor: Monitor | None = None
        self.trackers: Trackers | None = None
        self.page = Page(self.metrics.with_name("watch.html"), self.metrics, total=self.total)
        self._saved_at = time.monotonic()

    @property
    def leads(self) -> bool:
        """Whether this process writes what is kept."""
        return bool(self.accelerator.is_main_process)

    @property
    def total(self) -> int:
        """Steps of all stages, if none stops early."""
        return self.stages[-1].end

    @property
    def taken(self) -> list[tuple[Stage, list[Step]]]:
        """The packed rows (places of examples) of every step that was taken, by the stage that took it."""
        position, stages = self.position, self.stages
        counts = [*(stage["steps"] for stage in position.ended), position.step - stages[position.stage].start]
        return [(stage, stage.plan.steps[:count]) for stage, count in zip(stages, counts, strict=False)]

    def run(self) -> None:
        """Train every stage to its end, or to where early stopping says, and leave the best adapter of the last one in the model."""
        self._say()
        taught = self.course.taught
        self.charges.measure(taught, lambda: general_of(taught, self.settings), self.settings.seed, self.progress, keep=self.leads)
        self._resume()
        self._look_inside()
        self.progress.start(TASK, self.total, "steps")
        if self.position.step:
            self.progress.advance(TASK, self.position.step, "resumed")
        if self.position.groups is None:
            self.position.groups = self._by_group()
        self.model.train()
        while True:
            stage = self.stages[self.position.stage]
            if not self.position.stopped:
                self._steps(stage)
            self._take_best()
            self.groups = self._by_group()
            if stage is self.stages[-1] or self.pruned:
                break
            self._enter(self.stages[self.position.stage + 1])
        if (doubt := self._asked(self.doubt)) is not None:
            self.doubts.append(doubt)
            self.progress.say(f"warning: {doubt}")
        if self.private is not None:
            self.private.close(leads=self.leads)
        self.optimizer.state.clear()
        self.weights.assemble(self.model)
        if self.leads:
            self.page.update(self.alarms, ended=True)
        if self.trackers is not None:
            self.trackers.finish()
        self.progress.finish(TASK, f"loss {self.losses[-1]:.3f}" if self.losses else "")

    def hand_in(self, folder: Path) -> None:
        """Put what was measured step by step into the folder of the run."""
        for file in (self.metrics, self.metrics.with_name(DIAGNOSTICS), self.page.file):
            if file.exists():
                write_atomically(folder / file.name, file.read_bytes())

    def _say(self) -> None:
        processes, rows = self.accelerator.num_processes, self.settings.batch.rows_of_step
        if rows < processes:
            self.progress.say(f"note: a step has {rows} rows for {processes} processes, the others have nothing to do: raise training.batch.rows")
        if left := self.course.unused:
            self.progress.say(f"note: {left} of {len(self.course.taught)} training examples belong to no stage")

    def _look_inside(self) -> None:
        """Begin to watch: gradients, the page, trackers."""
        settings = self.settings.monitor
        if settings.every:
            warm = math.ceil(self.total * self.settings.optimizer.warmup)
            file = self.metrics.with_name(DIAGNOSTICS) if self.leads else None
            self.monitor = Monitor(self.parameters, self.weights, every=settings.every, file=file, say=self.progress.say, warm=warm)
            self.monitor.begin(self.position.step)
        if self.leads and settings.trackers:
            folder, run = self.metrics.parent / "trackers", self.metrics.parent.name[:12]
            self.trackers = Trackers(settings.trackers, folder=folder, project="metier", run=run, settings=self.settings.model_dump(mode="json"))
            self.progress.say(f"metrics are handed to {', '.join(settings.trackers)}")

    def _resume(self) -> None:
        torch.manual_seed(self.settings.seed)
        found = latest(self.checkpoints)
        if found is not None:
            # Which stage it is in says which optimiser its moments belong to.
            self.position = restore(found, self.kept, None, self.weights)
            self.optimizer = adamw(self.parameters.values(), self.stages[self.position.stage].settings)
            restore(found, self.kept, self.optimizer, self.weights)
        # Nothing is written before every process has read what there is.
        self.accelerator.wait_for_everyone()
        set_dropout(self.model, self.stages[self.position.stage].settings.adaptation.dropout)
        known = self.metrics.read_bytes()[: self.position.metrics_bytes] if self.metrics.exists() else b""
        rows = [json.loads(line) for line in known.splitlines()]
        self.losses, self.unusable = [row["loss"] for row in rows], sum(row.get("unusable", 0) for row in rows)
        self.accelerator.wait_for_everyone()
        if self.leads:
            if found is None:
                remove_folder(self.checkpoints)
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            self.metrics.touch()
            os.truncate(self.metrics, self.position.metrics_bytes)

    def _enter(self, stage: Stage) -> None:
        """Begin a stage: another optimiser, and nothing is best yet."""
        position = self.position
        if position.step < stage.start:
            self.progress.advance(TASK, stage.start - position.step)
        position.ended.append(self.stage_ended())
        position.groups = self.groups
        position.stage, position.step, position.stopped = position.stage + 1, stage.start, False
        position.best, position.best_loss, position.best_score, position.best_step, position.worse_in_a_row = None, None, None, None, 0
        self.optimizer = adamw(self.parameters.values(), stage.settings)
        set_dropout(self.model, stage.settings.adaptation.dropout)
        self._save()

    def stage_ended(self) -> dict[str, Any]:
        """Return what is to be said of the present stage, as far as it has come."""
        stage, position = self.stages[self.position.stage], self.position
        return {
            "name": stage.name,
            "examples": len(stage.chosen),
            "steps": position.step - stage.start,
            "best_step": position.best_step,
            "validation_loss": position.best_loss,
            "stopped_early": position.stopped,
            "validation_by_group": {group: [before, self.groups[group]] for group, before in (position.groups or {}).items()},
        }

    def _by_group(self) -> dict[str, float]:
        """Return the validation loss of each group as the model is now, where there are stages to compare."""
        if not self.settings.stages or not len(self.course.checks):
            return {}
        return self._check().by_group(self.course.checks.origins)

    def _steps(self, stage: Stage) -> None:
        settings, length = stage.settings, len(stage.plan.steps)
        times = settings.validation.times if stage.checks else 0
        when = {stage.start + round(length * (number + 1) / times) for number in range(times)}
        results = run_steps(
            self.course.taught,
            stage.plan,
            start=self.position.step - stage.start,
            before=stage.start,
            total=self.total,
            settings=settings,
            gather=self._gather(settings.objectives),
            optimizer=self.optimizer,
            penalties=self._penalties(settings.objectives),
            watchers=self._watchers(),
            clip=self.weights.clip,
        )
        for result in results:
            self.position.step += 1
            self.position.seconds += result.seconds
            self.position.tokens += result.tokens
            checked = self._validate(stage) if self.position.step in when else None
            self._write(stage, result, checked)
            rate = result.tokens / result.seconds
            self.progress.advance(TASK, 1, f"loss {result.loss:.3f}, {rate:.0f} tokens/s")
            if checked is not None and self.judge is not None and self.judge(self.position.step, checked.at(stage.checks), self.scored):
                # Not saved: a training that is resumed here validates again, asks again and hears the same.
                self.pruned = True
                break
            due = self.position.step % settings.checkpoint.steps == 0 or time.monotonic() - self._saved_at > settings.checkpoint.seconds
            if self.weights.agreed(due) or checked is not None or self.position.step == stage.end:
                self._save()
            if self.position.stopped:
                where = f" of the stage {stage.name}" if self.settings.stages else ""
                self.progress.say(
                    f"stopped early at step {self.position.step - stage.start} of {length}{where}: the validation {settings.validation.by} gets no better"
                )
                break

    def _watchers(self) -> list[Watcher]:
        found: list[Watcher] = [] if self.watcher is None else [self.watcher]
        return found if self.monitor is None else [*found, self.monitor]

    def _show(self, row: Mapping[str, Any]) -> None:
        """Hand on what a step has measured: to the page, and to the trackers that were named."""
        self.page.update(self.alarms)
        if self.trackers is not None:
            self.trackers.log({name: float(value) for name, value in row.items() if isinstance(value, int | float)}, self.position.step)

    @property
    def alarms(self) -> list[str]:
        """What was found to go wrong inside."""
        return [*([] if self.monitor is None else self.monitor.alarms), *self.doubts]

    def _gather(self, objectives: ObjectiveSettings) -> Gather:
        objective = self.objective(objectives)
        if self.private is not None:
            return self.private.with_objective(objective)
        return Summing(self.model, objective, list(self.parameters.values()), self.accelerator, seed=self.settings.seed, weights=self.weights)

    def _penalties(self, objectives: ObjectiveSettings) -> list[Callable[[], torch.Tensor]]:
        return [*([] if self.watcher is None else [self.watcher.penalty]), *self.charges.of(objectives)]

    def _check(self) -> Checked:
        task = "validation"
        self.progress.start(task, len(self.course.checks), "examples")
        self.model.eval()
        checked = check(
            self.model,
            self.course.checks,
            self.losses_of,
            row_tokens=self.settings.batch.row_tokens,
            accelerator=self.accelerator,
            seen=lambda count: self.progress.advance(task, count),
            weights=self.weights,
        )
        self.model.train()
        self.progress.finish(task, f"validation loss {checked.mean():.3f}")
        return checked

    def _validate(self, stage: Stage) -> Checked:
        checked = self._check()
        loss, position = self.course.measured(checked, stage)["validation_loss"], self.position
        worth = loss
        if self.settings.validation.by == "score":
            self.scored = self._score()
            worth = self.scored.value if self.lower else -self.scored.value
        if position.best is None or worth < position.best:
            position.best, position.best_loss, position.best_step, position.worse_in_a_row = worth, loss, position.step, 0
            position.best_score = None if self.scored is None else self.scored.value
        else:
            position.worse_in_a_row += 1
        position.stopped = position.worse_in_a_row >= self.settings.validation.patience
        return checked

    def _asked(self, question: Callable[[Any], Answer | None] | None) -> Answer | None:
        """Return what is found of the model as it is: by the process that leads, and by all where none has the whole of it."""
        found = None
        self.model.eval()
        if question is not None and (self.leads or self.weights.collective):
            found = self.weights.call(self.model, question)
        self.weights.rest(self.model)
        self.model.train()
        return found

    def _score(self) -> Score:
        """Return the score of the model as it is. The process that leads says it for all: they have to agree on what is best."""
        found = self._asked(self.score_of) or Score(math.nan, ())
        if self.accelerator.num_processes == 1:
            return found
        value = torch.tensor([found.value], dtype=torch.float64, device=self.accelerator.device)
        return replace(found, value=float(broadcast(value)))

    def _write(self, stage: Stage, result: StepResult, checked: Checked | None) -> None:
        row: dict[str, Any] = {
            "step": self.position.step,
            "epoch": round((self.position.step - stage.start) / stage.plan.steps_an_epoch, 4),
            "loss": result.loss,
            "learning_rate": result.learning_rate,
            "gradient_norm": result.gradient_norm,
            "tokens": result.tokens,
            "labels": result.labels,
            "seconds": round(result.seconds, 4),
        }
        if self.settings.stages:
            row["stage"] = stage.name
        if self.private is not None:
            row["unusable"] = result.unusable
            self.unusable += result.unusable
        if checked is not None:
            row |= self.course.measured(checked, stage)
            row |= {} if self.scored is None else {"validation_score": self.scored.value}
            row |= {"validation_by_group": checked.by_group(self.course.checks.origins), "validation_by_length": checked.by_length()}
        if self.leads:
            with self.metrics.open("ab") as stream:
                stream.write(json.dumps(row).encode() + b"\n")
            self._show(row)
        self.losses.append(result.loss)

    def _save(self) -> None:
        if self.leads:
            with self.metrics.open("rb") as stream:
                os.fsync(stream.fileno())
            self.position.metrics_bytes = self.metrics.stat().st_size
        if self.leads or self.weights.collective:
            save(self.checkpoints, self.position, self.kept, self.optimizer, self.weights, leads=self.leads)
        self._saved_at = time.monotonic()

    def _take_best(self) -> None:
        self.accelerator.wait_for_everyone()
        if self.position.best_step is not None and self.position.best_step != self.position.step:
            best = latest(self.checkpoints, self.position.best_step)
            if best is not None:
                restore(best, self.kept, None, self.weights)
        self.accelerator.wait_for_everyone()
