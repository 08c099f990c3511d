"""The training stage for answers in words: a dataset and a base model in, a run and an adapter out."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from metier.artifacts import Artifact
from metier.errors import InputError
from metier.models import Base, Chat, load_tokenizer, load_weights
from metier.models.methods import METHODS, AdaptiveRanks, Shape, Tuned, attach_method
from metier.models.precision import fastest_dtype
from metier.models.saved import write_saved
from metier.progress import Progress
from metier.shards import dataset_records, write_drops
from metier.store import Workspace, remove_folder, write_atomically
from metier.training.batches import Example, encode_records
from metier.training.checkpoint import Position, latest, restore, save
from metier.training.loop import Plan, StepResult, plan_steps, run_steps, validation_loss
from metier.training.objectives import Objective, answers_objective, cross_entropy
from metier.training.settings import TrainingSettings

__all__ = ["Trainer", "train", "validation_sample"]

TASK = "training"
_METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class _Effective:
    """What `auto` settings became on this data and this machine."""

    shape: Shape
    dtype: torch.dtype
    low_rank: bool

    @property
    def sizes(self) -> dict[str, Any]:
        """Rank and alpha, None where the method has no such thing."""
        return {"rank": self.shape.rank if self.low_rank else None, "alpha": self.shape.alpha if self.low_rank else None}


def train(dataset: Artifact, base: Base, settings: TrainingSettings, *, workspace: Workspace) -> tuple[Artifact, Artifact]:
    """Fine-tune a base model on a dataset's training split and return the run and the adapter.

    Started again in the same workspace it continues from the last checkpoint with the very numbers that an
    uninterrupted run would have had (same machine, same number of threads). Raises InputError if nothing can be trained.
    """
    chat = Chat(load_tokenizer(base), virtual=settings.adaptation.tokens if METHODS[settings.taught_by].family == "virtual" else 0)
    examples, drops = encode_records(dataset_records(dataset, "train"), chat, settings.batch.maximum_tokens)
    broken_up = chat.broken_up
    if broken_up:
        workspace.progress.say(f"{broken_up} control tokens of the base model stood in the training texts; there they are broken up by a word joiner")
    if settings.batch.order == "shuffled" and _has_curriculum(dataset):
        workspace.progress.say("note: the dataset is ordered by a curriculum, and another order is drawn in each epoch; training.batch.order: dataset keeps it")
    checks, _ = encode_records(validation_sample(dataset, settings.validation.limit), chat, settings.batch.maximum_tokens)
    if not examples:
        longest = f"; all {len(drops)} were left out (first: {drops[0].reason})" if drops else ""
        raise InputError(f"there is no example to train on{longest}\n    -> look at the data with: metier data inspect, or raise training.batch.maximum_tokens")
    accelerator = Accelerator()
    effective = _resolve(settings, len(examples), accelerator.device.type)
    model = load_weights(base, effective.dtype)
    tuned = attach_method(model, settings.taught_by, effective.shape, seed=settings.seed)
    trainer = Trainer(model.to(accelerator.device), (examples, checks), settings, workspace, accelerator, tuned=tuned)
    trainer.run()
    run_folder = workspace.folder / "run"
    run_folder.mkdir(exist_ok=True)
    write_drops(run_folder / "drops.parquet", drops)
    (run_folder / _METRICS).write_bytes(trainer.metrics.read_bytes())
    facts = _facts(trainer, base, chat, effective, dropped=len(drops)) | {"control_tokens_broken_up": broken_up}
    run = workspace.commit("run", run_folder, parents=[dataset.digest, base.digest], facts=facts)
    folder = workspace.folder / "adapter"
    write_saved(folder, tuned.config() | {"base_model_name_or_path": base.name}, tuned.state())
    write_atomically(folder / "chat_template.jinja", str(chat.tokenizer.chat_template).encode())
    about: dict[str, Any] = {"base": {"name": base.name, "digest": base.digest, "licence": base.licence}, "method": settings.taught_by}
    about |= effective.sizes | {"trainable_parameters": trainer.trainable, "template": chat.digest}
    adapter = workspace.commit("adapter", folder, parents=[run.digest, dataset.digest, base.digest], facts=about)
    return run, adapter


def _has_curriculum(dataset: Artifact) -> bool:
    settings = next((step["settings"] for step in dataset.facts.get("steps", ()) if step["name"] == "mix"), None)
    return settings is not None and settings["curriculum"]["by"] is not None


def validation_sample(dataset: Artifact, limit: int) -> list[Any]:
    """Return the validation examples in the order of their ids, which are digests: a fixed random sample."""
    return sorted(dataset_records(dataset, "validation"), key=lambda record: record.id)[:limit]


def _resolve(settings: TrainingSettings, examples: int, device: str) -> _Effective:
    formats = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    given = settings.adaptation
    rank, alpha = given.rank_for(examples), given.alpha_for(examples)
    shape = Shape(
        rank=rank,
        alpha=alpha,
        dropout=given.dropout,
        targets=given.targets,
        ranks=given.ranks,
        layers=given.layers,
        head=given.head,
        size=given.size,
        tokens=given.tokens,
    )
    dtype = fastest_dtype(device) if settings.precision == "auto" else formats[settings.precision]
    return _Effective(shape, dtype, METHODS[settings.taught_by].family in {"low-rank", "adaptive"})


class Trainer:
    """Steps, validation, metrics and checkpoints of one training; its state is in the workspace."""

    def __init__(
        self,
        model: Any,
        data: tuple[Sequence[Example], Sequence[Example]],
        settings: TrainingSettings,
        workspace: Workspace,
        accelerator: Accelerator,
        *,
        objective: Objective = cross_entropy,
        tuned: Tuned | None = None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.examples, self.checks = data
        self.tuned = tuned
        self.watcher = tuned if isinstance(tuned, AdaptiveRanks) else None
        self.settings = settings
        self.accelerator = accelerator
        self.progress: Progress = workspace.progress
        self.checkpoints = workspace.folder / "checkpoints"
        self.metrics = workspace.folder / _METRICS
        self.parameters: dict[str, torch.Tensor] = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.trainable = sum(parameter.numel() for parameter in self.parameters.values())
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=settings.peak_rate,
            betas=settings.optimizer.betas,
            weight_decay=settings.optimizer.weight_decay,
            fused=True,
        )
        self.kept = self.parameters | (self.watcher.kept() if self.watcher else {})
        """What a checkpoint holds: the parameters, and what a method keeps beside them."""
        self.plan: Plan = plan_steps(self.examples, settings)
        self.position = Position()
        self.losses: list[float] = []
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the end, or to where early stopping says, and leave the best adapter in the model."""
        self._resume()
        total = len(self.plan.steps)
        self.progress.start(TASK, total, "steps")
        if self.position.step:
            self.progress.advance(TASK, self.position.step, "resumed")
        self.model.train()
        if not self.position.stopped:
            self._steps(total)
        self._take_best()
        self.progress.finish(TASK, f"loss {self.losses[-1]:.3f}" if self.losses else "")

    def facts(self) -> dict[str, Any]:
        """Return what a run says of a training that has ended, whatever was taught."""
        position = self.position
        return {
            "examples": len(self.examples),
            "steps": position.step,
            "stopped_early": position.stopped,
            "best_step": position.best_step,
            "final_loss": self.losses[-1],
            "validation_loss": position.best_loss,
            "trainable_parameters": self.trainable,
            "tokens": position.tokens,
            "seconds": round(position.seconds, 3),
            "tokens_per_second": round(position.tokens / position.seconds, 2),
            "peak_memory_bytes": _peak_memory(),
            "environment": _environment(self.accelerator),
        }

    def _resume(self) -> None:
        torch.manual_seed(self.settings.seed)
        found = latest(self.checkpoints)
        if found is not None:
            self.position = restore(found, self.kept, self.optimizer)
        else:
            remove_folder(self.checkpoints)
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        self.metrics.touch()
        os.truncate(self.metrics, self.position.metrics_bytes)
        self.losses = [json.loads(line)["loss"] for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def _steps(self, total: int) -> None:
        settings = self.settings
        when = {round(total * (number + 1) / settings.validation.times) for number in range(settings.validation.times)} if self.checks else set()
        results = run_steps(
            self.model,
            self.examples,
            self.plan,
            start=self.position.step,
            settings=settings,
            objectives=[(1.0, self.objective if self.tuned is None else answers_objective(self.settings.objectives, self.tuned))],
            optimizer=self.optimizer,
            accelerator=self.accelerator,
            penalties=self._penalties(),
            watcher=self.watcher,
        )
        for result in results:
            self.position.step += 1
            self.position.seconds += result.seconds
            self.position.tokens += result.tokens
            check = self._validate() if self.position.step in when else None
            self._write(result, check)
            rate = result.tokens / result.seconds
            self.progress.advance(TASK, 1, f"loss {result.loss:.3f}, {rate:.0f} tokens/s")
            due = self.position.step % settings.checkpoint.steps == 0 or time.monotonic() - self._saved_at > settings.checkpoint.seconds
            if due or check is not None or self.position.step == total:
                self._save()
            if self.position.stopped:
                self.progress.say(f"stopped early at step {self.position.step} of {total}: the validation loss no longer falls")
                break

    def _penalties(self) -> list[Callable[[], torch.Tensor]]:
        found = [] if self.watcher is None else [self.watcher.penalty]
        weight, tuned = self.settings.objectives.start, self.tuned
        return found if not weight or tuned is None else [*found, lambda: weight * tuned.distance()]

    def _validate(self) -> float:
        task = "validation"
        self.progress.start(task, len(self.checks), "examples")
        self.model.eval()
        loss = validation_loss(
            self.model,
            self.checks,
            self.objective,
            row_tokens=self.settings.batch.row_tokens,
            device=self.accelerator.device,
            seen=lambda count: self.progress.advance(task, count),
        )
        self.model.train()
        self.progress.finish(task, f"validation loss {loss:.3f}")
        position = self.position
        if position.best_loss is None or loss < position.best_loss:
            position.best_loss, position.best_step, position.worse_in_a_row = loss, position.step, 0
        else:
            position.worse_in_a_row += 1
        position.stopped = position.worse_in_a_row >= self.settings.validation.patience
        return loss

    def _write(self, result: StepResult, check: float | None) -> None:
        row: dict[str, Any] = {
            "step": self.position.step,
            "epoch": round(self.position.step / self.plan.steps_an_epoch, 4),
            "loss": result.loss,
            "learning_rate": result.learning_rate,
            "gradient_norm": result.gradient_norm,
            "tokens": result.tokens,
            "labels": result.labels,
            "seconds": round(result.seconds, 4),
        }
        if check is not None:
            row["validation_loss"] = check
        with self.metrics.open("ab") as stream:
            stream.write(json.dumps(row).encode() + b"\n")
        self.losses.append(result.loss)

    def _save(self) -> None:
        with self.metrics.open("rb") as stream:
            os.fsync(stream.fileno())
        self.position.metrics_bytes = self.metrics.stat().st_size
        save(self.checkpoints, self.position, self.kept, self.optimizer)
        self._saved_at = time.monotonic()

    def _take_best(self) -> None:
        if self.position.best_step is not None and self.position.best_step != self.position.step:
            best = latest(self.checkpoints, self.position.best_step)
            if best is not None:
                restore(best, self.kept, None)


def _facts(trainer: Trainer, base: Base, chat: Chat, effective: _Effective, *, dropped: int) -> dict[str, Any]:
    settings = trainer.settings
    dtype = str(effective.dtype).removeprefix("torch.")
    resolved = settings.model_dump(mode="json") | {"method": settings.taught_by, "precision": dtype, "learning_rate": settings.peak_rate}
    resolved["adaptation"] |= effective.sizes
    return {
        "base": {"name": base.name, "digest": base.digest, "licence": base.licence},
        "template": chat.digest,
        "settings": {"asked": settings.model_dump(mode="json", exclude_unset=True), "effective": resolved},
        "dropped": dropped,
    } | trainer.facts()


def _peak_memory() -> int:
    """Return the largest resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _environment(accelerator: Accelerator) -> dict[str, Any]:
    """Return what names the machine and the packages of a run."""
    packages = {name: version(name) for name in ("torch", "transformers", "accelerate", "safetensors")}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "packages": packages,
    }
