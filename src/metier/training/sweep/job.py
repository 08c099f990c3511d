"""One trial: a training in a folder of its own, given up where it is hopeless, and measured example by example where it is not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from metier.artifacts import Artifact
from metier.digest import canonical_json
from metier.errors import Fault, InputError, ModelError
from metier.jackknife import Score
from metier.models import Base
from metier.progress import SILENT, Progress
from metier.store import Store, Workspace, remove_folder, write_atomically
from metier.training.checking import Checked
from metier.training.scoring import Scoring
from metier.training.settings import TrainingSettings
from metier.training.stage import train
from metier.training.sweep.hopeless import Rule
from metier.training.sweep.quantity import LOSS, Quantity
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
    by: Quantity = LOSS
    """What trials are compared by."""
    scoring: Scoring | None = None


def run_trial(job: Job, progress: Progress = SILENT) -> dict[str, Any]:
    """Train, and return what came of it as JSON values; started again it goes on where it was stopped, and once it is done it says so at once.

    `course` is what each validation measured of what trials are compared by, `value` that of what is kept, `examples` what its standard error is made of: the
    summed loss and the learnt tokens of each validation example, or a score's pseudo-value of each item and 1. `losses` and `loss` are the validation losses
    (nats a learnt token), whatever trials are compared by, `reason` why it was given up or failed. A training that fails by its settings (the loss is no
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

    def hopeless(step: int, checked: Checked, score: Score | None) -> bool:
        """Judge by all validations of this trial, also those before an interruption."""
        seen.keep(step, checked, score)
        course = seen.course(job.by, step)
        reason = job.rule.judge(job.number, course) if len(course) < whole else None
        said.extend([] if reason is None else [f"{reason} (step {step}, {job.by.kind} {course[-1]:.4g})"])
        return reason is not None

    run, _ = train(job.dataset, job.base, job.settings, job.teacher, scoring=job.scoring, workspace=workspace, judge=hopeless)
    best = run.facts["best_step"]
    if best is None:
        remedy = "keep some records for validation: prepare.split.validation"
        raise InputError(Fault("no example of the validation split fits, so there is nothing to compare", remedy=remedy))
    effective = run.facts["settings"]["effective"]
    sizes = {key: effective["adaptation"][key] for key in ("rank", "alpha")}
    pruned = bool(run.facts["pruned"])
    return {
        "state": "pruned" if pruned else "complete",
        "reason": said[-1] if said else None,
        "value": run.facts[f"validation_{job.by.kind}"],
        "course": seen.course(job.by),
        "examples": [] if pruned else seen.examples(job.by, best),
        "loss": run.facts["validation_loss"],
        "losses": seen.course(LOSS),
        "seconds": run.facts["seconds"],
        "trainable_parameters": run.facts["trainable_parameters"],
        "effective": {"method": effective["method"], "learning_rate": effective["learning_rate"], **sizes},
    }


class _Seen:
    """What each validation of a trial found, by step, in files: a trial that goes on after an interruption knows those before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, step: int, checked: Checked, score: Score | None) -> None:
        """Write a validation down; after an interruption the same one may come again."""
        found = {"losses": list(zip(checked.losses, checked.labels, strict=True)), "score": None if score is None else asdict(score)}
        write_atomically(self._folder / f"{step:08d}.json", canonical_json(found))

    def examples(self, by: Quantity, step: int) -> list[tuple[float, int]]:
        """Return (summed loss, learnt tokens) of each validation example at a step, or (pseudo-value, 1) of each item of a score."""
        found = self._read(step)
        return found["losses"] if by.kind == "loss" else [(value, 1) for value in found["score"]["items"]]

    def course(self, by: Quantity, last: int | None = None) -> list[float]:
        """Return what was measured up to a step (default: all), in order."""
        steps = sorted(int(path.stem) for path in self._folder.glob("*.json"))
        found = [self._read(step) for step in steps if last is None or step <= last]
        return [mean_loss(item["losses"]) if by.kind == "loss" else item["score"]["value"] for item in found]

    def _read(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / f"{step:08d}.json").read_bytes())
        return found
