"""One trial: a training in a folder of its own, given up where it is hopeless, and measured example by example where it is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from metier.artifacts import Artifact
from metier.digest import canonical_json
from metier.errors import Fault, InputError, ModelError
from metier.models import Base
from metier.progress import SILENT, Progress
from metier.store import Store, Workspace, remove_folder, write_atomically
from metier.training.checking import Checked
from metier.training.settings import TrainingSettings
from metier.training.stage import train
from metier.training.sweep.hopeless import Rule
from metier.training.sweep.spread import mean_loss
from metier.training.sweep.trials import failed

__all__ = ["Job", "run_trial"]

_OUTCOME = "outcome.json"
_KEY = "training"


@dataclass(frozen=True, slots=True)
class Job:
    """What a trial is given: its settings, and a folder of its own."""

    number: int
    settings: TrainingSettings
    dataset: Artifact
    base: Base
    folder: Path
    rule: Rule
    shared: Path
    """Folder of what all trials need alike."""
    teacher: Base | None = None


def run_trial(job: Job, progress: Progress = SILENT) -> dict[str, Any]:
    """Train, and return what came of it as JSON values; started again it goes on where it was stopped, and once it is done it says so at once.

    `losses` are the validation losses in order, `loss` that of what is kept (nats a learnt token), `examples` the summed loss and the learnt tokens of each
    validation example at its best step, `reason` why it was given up or failed. A training that fails by its settings (the loss is no
    number, a rank is too large, memory runs out) is an outcome; other errors are raised.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    # A worker whose sweep was killed ends by itself; until it has, nobody else may train in its folder.
    with FileLock(job.folder / "lock"):
        if (job.folder / _OUTCOME).exists():
            found: dict[str, Any] = json.loads((job.folder / _OUTCOME).read_bytes())
            return found
        try:
            outcome = _trained(job, progress)
        except ModelError as error:
            outcome = failed(str(error).splitlines()[0])
        except torch.OutOfMemoryError:
            outcome = failed("the accelerator's memory ran out")
        write_atomically(job.folder / _OUTCOME, canonical_json(outcome))
        remove_folder(job.folder / "work")
        remove_folder(job.folder / "artifacts")
    return outcome


def _trained(job: Job, progress: Progress) -> dict[str, Any]:
    workspace = Workspace(Store(job.folder), _KEY, progress, shared=job.shared)
    seen = _Seen(workspace.folder / "validations")
    whole = job.settings.validation.times
    said: list[str] = []

    def hopeless(step: int, checked: Checked) -> bool:
        """Judge by all validations of this trial, also those before an interruption."""
        seen.keep(step, checked)
        losses = seen.losses(step)
        reason = job.rule.judge(job.number, losses) if len(losses) < whole else None
        said.extend([] if reason is None else [f"{reason} (step {step}, loss {losses[-1]:.4g})"])
        return reason is not None

    run, _ = train(job.dataset, job.base, job.settings, job.teacher, workspace=workspace, judge=hopeless)
    best = run.facts["best_step"]
    if best is None:
        remedy = "keep some records for validation: prepare.split.validation"
        raise InputError(Fault("no example of the validation split fits, so there is no loss to compare", remedy=remedy))
    effective = run.facts["settings"]["effective"]
    sizes = {key: effective["adaptation"][key] for key in ("rank", "alpha")}
    pruned = bool(run.facts["pruned"])
    return {
        "state": "pruned" if pruned else "complete",
        "reason": said[-1] if said else None,
        "loss": run.facts["validation_loss"],
        "losses": seen.losses(),
        "examples": [] if pruned else seen.examples(best),
        "seconds": run.facts["seconds"],
        "trainable_parameters": run.facts["trainable_parameters"],
        "effective": {"method": effective["method"], "learning_rate": effective["learning_rate"], **sizes},
    }


class _Seen:
    """What each validation of a trial found, by step, in files: a trial that goes on after an interruption knows those before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, step: int, checked: Checked) -> None:
        """Write a validation down; after an interruption the same one may come again."""
        write_atomically(self._folder / f"{step:08d}.json", canonical_json(list(zip(checked.losses, checked.labels, strict=True))))

    def examples(self, step: int) -> list[tuple[float, int]]:
        """Return (summed loss, learnt tokens) of each validation example at a step."""
        found: list[tuple[float, int]] = json.loads((self._folder / f"{step:08d}.json").read_bytes())
        return found

    def losses(self, last: int | None = None) -> list[float]:
        """Return the mean losses up to a step (default: all), in order."""
        steps = sorted(int(path.stem) for path in self._folder.glob("*.json"))
        return [mean_loss(self.examples(step)) for step in steps if last is None or step <= last]
