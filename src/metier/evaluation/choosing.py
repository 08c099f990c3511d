"""Scores that a training chooses by: tasks asked of validation records, so that nothing is chosen by the items that a release is decided on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.artifacts import Artifact
from metier.digest import digest_of
from metier.errors import Fault, InputError, ModelError
from metier.evaluation.ask import answer_items
from metier.evaluation.corpus import Corpus
from metier.evaluation.items import Task
from metier.evaluation.scorers import Grader, Tools, higher_is_better
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.task import Source, named_sources, spec_task
from metier.jackknife import Score, jackknifed, mean_of
from metier.models import Chat, LocalModel
from metier.packs import Metric, Pack
from metier.progress import Progress
from metier.stages import code_of

__all__ = ["ValidationScore", "validation_score"]

_KEY = "training.validation.tasks"


@dataclass(frozen=True, slots=True)
class ValidationScore:
    """The mean over tasks of one metric each, over validation records; see `metier.training.scoring.Scoring`."""

    tasks: tuple[tuple[Source, Metric], ...]
    pack: Pack
    settings: EvaluationSettings
    languages: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of the tasks, the pack, the settings and the code that asks and grades."""
        asked = [[source.spec.model_dump(mode="json"), metric.metric] for source, metric in self.tasks]
        chosen = [self.settings.limit, self.settings.seed, self.settings.max_new_tokens, list(self.languages)]
        return digest_of([asked, self.pack.digest, chosen, code_of("evaluation")])

    @property
    def name(self) -> str:
        """The metrics and what they are measured on."""
        metrics = list(dict.fromkeys(metric.metric for _, metric in self.tasks))
        return f"{', '.join(metrics)} of {', '.join(source.spec.task for source, _ in self.tasks)} (validation records)"

    @property
    def higher_is_better(self) -> bool:
        """Which way is better."""
        _, metric = self.tasks[0]
        return higher_is_better(metric.metric, metric.higher_is_better)

    def open(self, dataset: Artifact, chat: Chat, *, device: str, progress: Progress) -> _Scores:
        """Return what scores a model on this dataset's validation records. Raises InputError, naming each task, where they have nothing to ask."""
        corpus = Corpus(dataset, self.settings.seed)
        made = [(spec_task(source, corpus, self.settings, self.languages), metric.metric) for source, metric in self.tasks]
        faults = []
        for task, _ in made:
            if not task.items:
                left = "; ".join(f"{reason}: {count}" for reason, count in task.left_out.items())
                what = f"no validation record can be asked for {task.name}" + (f" ({left})" if left else "")
                faults.append(Fault(what, key=_KEY, remedy="keep records of it for validation (prepare.split.validation), or name another task"))
        if faults:
            raise InputError(faults)
        return _Scores(made, Tools(self.pack), chat, device, progress)


@dataclass(frozen=True, slots=True)
class _Scores:
    """What a model is asked, and how its answers are graded."""

    asked: Sequence[tuple[Task, str]]
    tools: Tools
    chat: Chat
    device: str
    progress: Progress

    def __call__(self, model: Any) -> Score:
        """Return the score of a model as it is. Raises ModelError where a metric is not defined for its answers."""
        asked = LocalModel(model, self.chat, device=self.device)
        return mean_of([self._of(asked, task, metric) for task, metric in self.asked])

    def _of(self, model: LocalModel, task: Task, metric: str) -> Score:
        label = f"{task.name} (validation)"
        self.progress.start(label, len(task.items), "items")
        answers = answer_items(model, task, task.items, self.progress, label)
        grader = Grader(task, self.tools)
        measure = grader.measure(metric, [grader.grade(item, answer) for item, answer in zip(task.items, answers, strict=True)])
        found = jackknifed(measure.statistic, len(task.items))
        self.progress.finish(label, f"{metric} {found.value:.3f}")
        if not math.isfinite(found.value):
            raise ModelError(f"{metric} says nothing of these validation records of {task.name}\n    -> choose by another one: training.validation.metric")
        return found


def validation_score(
    pack: Pack, settings: EvaluationSettings, languages: Sequence[str], *, tasks: Sequence[str], metric: str | None, limit: int, project: Path
) -> ValidationScore:
    """Return what scores a model by tasks of the pack or task files of the project, asked of at most `limit` validation records a task and language.

    `metric` None: the first of each task. Raises InputError with every fault: what `named_sources` finds, tasks whose items are the held-out ones
    that a release is decided on, tasks that the evaluation itself asks of the validation split, metrics that a task does not have or that differ in
    which way is better.
    """
    sources = named_sources(pack, tasks, project, key=_KEY)
    decided = {source.spec.task for source in named_sources(pack, settings.tasks, project) if source.spec.test_split == "validation"}
    faults = [Fault(f"{name!r} is no single task", key=_KEY, remedy=_remedy(pack)) for name in tasks if name in ("pack", "held-out", "retention")]
    chosen: list[tuple[Source, Metric]] = []
    for source in sources:
        spec = source.spec
        if spec.dataset_path != "dataset":
            what = f"{spec.task} has items of its own, and a release is decided on them: what is chosen by them looks better there than it is"
            faults.append(Fault(what, key=_KEY, remedy="choose by a task over the project's records (dataset_path: dataset)"))
        if decided:
            what = f"the evaluation asks {', '.join(sorted(decided))} of the validation split, so a release would be decided on what it was chosen by"
            faults.append(Fault(what, key="evaluation.tasks", remedy="write test_split: test in that task"))
            decided = set()
        known = {found.metric: found for found in spec.metric_list}
        if metric is not None and metric not in known:
            faults.append(Fault(f"{spec.task} has no metric {metric!r}", key="training.validation.metric", remedy=f"take one of {', '.join(known)}"))
            continue
        own = spec.model_copy(update={"test_split": "validation"})
        chosen.append((Source(own, source.path, source.folder), spec.metric_list[0] if metric is None else known[metric]))
    if len({higher_is_better(found.metric, found.higher_is_better) for _, found in chosen}) > 1:
        what = "of some of these tasks' metrics more is better, of others less: their mean would say nothing"
        faults.append(Fault(what, key=_KEY, remedy="name one metric that all have (training.validation.metric), or fewer tasks"))
    if faults:
        raise InputError(faults)
    return ValidationScore(tuple(chosen), pack, settings.model_copy(update={"limit": limit}), tuple(languages))


def _remedy(pack: Pack) -> str:
    names = [spec.task for spec in pack.tasks if spec.dataset_path == "dataset"]
    return f"name tasks of the pack ({', '.join(names)}), or task files" if names else "name task files"
