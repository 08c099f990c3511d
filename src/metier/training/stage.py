"""The training stage: which task is taught decides which kind of model is trained. Other processes may follow the one that runs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from metier.artifacts import Artifact
from metier.engines import EngineSettings, Ray, engine_of, together
from metier.errors import InputError
from metier.models import Base
from metier.progress import SILENT, Progress
from metier.store import Store, Workspace
from metier.training.answers import Answering, prepare_answers
from metier.training.crew import Job, followed, leading, receive
from metier.training.launch import following, processes
from metier.training.settings import TrainingSettings
from metier.training.taught import Labelling, prepare_labels
from metier.training.trainer import Judge

__all__ = ["follow", "train"]

_HERE = EngineSettings()


@dataclass(frozen=True, slots=True)
class _Given:
    """What workers of Ray are given: the project's store, the stage's workspace there, and what `train` is called with."""

    store: Path
    key: str
    code: str
    dataset: Artifact
    base: Base
    settings: TrainingSettings
    teacher: Base | None
    engine: EngineSettings


def train(
    dataset: Artifact,
    base: Base,
    settings: TrainingSettings,
    teacher: Base | None = None,
    *,
    workspace: Workspace,
    judge: Judge | None = None,
    engine: EngineSettings = _HERE,
) -> tuple[Artifact, Artifact]:
    """Train a base model on a dataset's training split and return the run and what was trained (an adapter, or a model with a head).

    Started again in the same workspace it continues from the last checkpoint with the very numbers that an
    uninterrupted run would have had (same machine, same number of threads). `teacher` is the model that `settings.teacher` names. `judge` is told
    the step and the losses of each validation; where it returns True the training ends as pruned, which the run's facts say. `engine` says how the
    weights lie over the processes and whether workers of Ray train; nothing of it changes a result. Raises
    InputError if nothing can be trained or a judge is given to one of several processes, ModelError if another process of the same training ends.
    """
    if judge is not None and processes() > 1:
        raise InputError("a training that is judged on its way is not shared by several processes\n    -> run metier sweep without a launcher")
    if engine.training_workers > 1:
        return _on_ray(dataset, base, settings, teacher, workspace, engine)
    named = None if teacher is None else (teacher.name, teacher.digest)
    sharded = engine.distribution == "sharded"
    with leading(Job(workspace.key, dataset.digest, settings.model_dump_json(), (base.name, base.digest), named, sharded)):
        prepared = _prepare(dataset, base, settings, teacher, workspace, sharded=sharded)
        prepared.trainer.judge = judge
        prepared.trainer.run()
    return prepared.commit(workspace)


def _on_ray(
    dataset: Artifact, base: Base, settings: TrainingSettings, teacher: Base | None, workspace: Workspace, engine: EngineSettings
) -> tuple[Artifact, Artifact]:
    """Let workers of Ray train, of which the first leads; this process only shows how far they are."""
    ray = engine_of(engine)
    assert isinstance(ray, Ray), "training_workers is refused for other engines"
    alone = engine.model_copy(update={"training_workers": 1})
    given = _Given(workspace.store.root, workspace.key, workspace.code, dataset, base, settings, teacher, alone)
    run, trained = together(ray, engine.training_workers, _take_part, given, workspace.progress)
    return run, trained


def _take_part(given: _Given, progress: Progress) -> tuple[Artifact, Artifact] | None:
    """Train as one of several workers, which know from their environment who leads."""
    store = Store(given.store)
    if following():
        follow(store)
        return None
    workspace = replace(store.workspace(given.key, progress), code=given.code)
    return train(given.dataset, given.base, given.settings, given.teacher, workspace=workspace, engine=given.engine)


def follow(store: Store) -> None:
    """Train along with the process that leads, as its environment says (see `metier.training.crew`), and return when it has ended.

    Raises ModelError if another process ends, InputError if a model here is not the leader's.
    """
    told = receive(store.root.parent)
    if told is None:
        return
    job, base, teacher = told
    with followed():
        dataset = store.open("dataset", job.dataset)
        settings = TrainingSettings.model_validate_json(job.settings)
        _prepare(dataset, base, settings, teacher, store.workspace(job.key, SILENT), sharded=job.sharded).trainer.run()


def _prepare(dataset: Artifact, base: Base, settings: TrainingSettings, teacher: Base | None, workspace: Workspace, *, sharded: bool) -> Answering | Labelling:
    if settings.task != "generation":
        return prepare_labels(dataset, base, settings, settings.task, workspace=workspace, sharded=sharded)
    return prepare_answers(dataset, base, settings, teacher, workspace=workspace, sharded=sharded)
