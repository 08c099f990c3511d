"""The sweep: draws trials, has them trained, keeps what came of each, and concludes. Stopped anywhere, it goes on with the very same trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from metier.artifacts import Artifact
from metier.engines.attempt import Answer, result
from metier.errors import Fault, InputError, ModelError
from metier.models import Base
from metier.progress import SILENT, Progress
from metier.shards import dataset_records
from metier.store import remove_folder, write_atomically
from metier.training.scoring import Scoring
from metier.training.sweep.conclude import conclude
from metier.training.sweep.diary import Diary
from metier.training.sweep.draw import draw, planned_trials, settled
from metier.training.sweep.hopeless import Rule
from metier.training.sweep.job import Job
from metier.training.sweep.report import write_report
from metier.training.sweep.settings import SweepSettings
from metier.training.sweep.space import Space
from metier.training.sweep.trials import Journal, Trial, failed, optuna
from metier.training.sweep.workers import Workers

__all__ = ["search"]

TASK = "sweep"
_JOURNAL, _RESULT, _REPORT = "journal.log", "result.json", "report.html"


@dataclass(slots=True)
class _Sweep:
    """A sweep under way. `trials` are all that have begun, in order."""

    dataset: Artifact
    base: Base
    space: Space
    settings: SweepSettings
    folder: Path
    teacher: Base | None
    scoring: Scoring | None
    trials: list[Trial]

    def job(self, trial: Trial) -> Job:
        """Return what a trial is given."""
        training, sweep = self.space.settings(trial.values), self.settings
        known = tuple(settled(trial.number, sweep, self.trials))
        # What a training is like in an early stage says little of how its last one will end.
        rule = Rule("none" if training.stages else sweep.prune, self.space, trial.values, known, training.validation.times, sweep.warmup)
        return Job(trial.number, training, self.dataset, self.base, self._folder(trial.number), rule, self.folder, self.teacher, self.space.by, self.scoring)

    def _folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def forget(self, number: int) -> None:
        """Remove what a trial left, once the journal has it."""
        remove_folder(self._folder(number))


def search(
    dataset: Artifact,
    base: Base,
    space: Space,
    settings: SweepSettings,
    *,
    folder: Path,
    project: str,
    workers: AbstractContextManager[Workers],
    teacher: Base | None = None,
    scoring: Scoring | None = None,
    diary: Diary | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Return the findings of a sweep as JSON values (see `conclude`), and leave `result.json` and `report.html` in its folder.

    `folder` is this sweep's own: what is in it is gone on with. `workers` are only entered if there is something to train; `teacher` is the model
    that `training.teacher` names, `scoring` what asks the tasks of `training.validation.tasks`.
    `diary` puts the sweep and every finished trial on record, each once; those of an earlier attempt that stopped in between too.
    Raises InputError for a dataset without validation split, ModelError if every trial failed, MissingExtra without Optuna.
    """
    if next(dataset_records(dataset, "validation"), None) is None:
        remedy = "keep some records for validation: prepare.split.validation"
        raise InputError(Fault("the dataset has no validation split, so there is nothing to compare", remedy=remedy))
    optuna()
    journal = Journal(folder / _JOURNAL, space)
    sweep = _Sweep(dataset, base, space, settings, folder, teacher, scoring, journal.trials())
    total = max(planned_trials(space, settings), len(sweep.trials))
    progress.start(TASK, total, "trials")
    finished = [trial for trial in sweep.trials if trial.outcome is not None]
    progress.advance(TASK, len(finished), "resumed" if sweep.trials else "")
    if diary is not None:
        diary.begun(dataset, base, teacher, space, total)
        for trial in finished:
            diary.trial(trial, space)
    if len(finished) < total:
        with workers as ready:
            _run(sweep, journal, ready, total, progress, diary)
    progress.finish(TASK, _best(sweep))
    if not any(trial.value is not None for trial in sweep.trials):
        reasons = sorted({trial.outcome["reason"] for trial in sweep.trials if trial.outcome})
        raise ModelError(f"every one of the {len(sweep.trials)} trials failed: {'; '.join(reasons)}\n    -> search other values, or mend what is said here")
    return _conclusion(sweep, project, diary)


def _run(sweep: _Sweep, journal: Journal, workers: Workers, total: int, progress: Progress, diary: Diary | None) -> None:
    """Train until every trial has an outcome; those that were under way go first."""
    trials = sweep.trials
    for trial in trials:
        if trial.outcome is None:
            workers.start(sweep.job(trial))
    while any(trial.outcome is None for trial in trials) or len(trials) < total:
        # A trial begins once all it may know of has ended, which also keeps at most `parallel` under way.
        while len(trials) < total and all(trial.outcome is not None for trial in settled(len(trials), sweep.settings, trials)):
            trial = Trial(len(trials), draw(len(trials), sweep.space, sweep.settings, trials))
            journal.begin(trial)
            trials.append(trial)
            workers.start(sweep.job(trial))
        number, answer = workers.next()
        trials[number] = replace(trials[number], outcome=_outcome(answer))
        journal.end(trials[number])
        if diary is not None:
            diary.trial(trials[number], sweep.space)
        sweep.forget(number)
        ended = trials[number]
        told = f"trial {number}: " + (f"{sweep.space.by.kind} {ended.value:.4f}" if ended.value is not None else ended.state)
        progress.advance(TASK, 1, f"{told}, {_best(sweep)}" if _best(sweep) else told)


def _outcome(answer: Answer) -> Mapping[str, Any]:
    """Return what came of a trial. A process that died twice is the trial's failure; other errors concern all trials and are raised."""
    good, value = answer
    if good or value.kind != "Died":
        found: Mapping[str, Any] = result(answer)
        return found
    return failed(value.message)


def _best(sweep: _Sweep) -> str:
    values = [trial.value for trial in sweep.trials if trial.state == "complete" and trial.value is not None]
    return f"best {min(values, key=sweep.space.by.cost):.4f}" if values else ""


def _conclusion(sweep: _Sweep, project: str, diary: Diary | None) -> dict[str, Any]:
    examples = max((len(trial.examples) for trial in sweep.trials), default=0)
    about = {"base": sweep.base.name, "dataset": sweep.dataset.digest, "examples": examples}
    found: dict[str, Any] = about | conclude(sweep.space, sweep.trials) | {"report": str(sweep.folder / _REPORT)}
    write_atomically(sweep.folder / _REPORT, write_report(project, found).encode())
    result = json.dumps(found, ensure_ascii=False, indent=1).encode()
    write_atomically(sweep.folder / _RESULT, result)
    if diary is not None:
        diary.ended(sweep.trials, None if found["recommended"] is None else found["recommended"]["number"], sha256(result).hexdigest())
    return found
