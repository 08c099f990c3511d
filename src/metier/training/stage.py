"""The training stage: which task is taught decides which kind of model is trained. Other processes may follow the one that runs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from metier.training.environment import give_back_memory
from metier.training.launch import following, processes
from metier.training.members import Member
from metier.training.parts import commit_part, find_parts, keep_parts, parts_key
from metier.training.scoring import Scoring
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
    members: tuple[Member, ...]
    scoring: Scoring | None
    engine: EngineSettings


def train(
    dataset: Artifact,
    base: Base,
    settings: TrainingSettings,
    teacher: Base | None = None,
    members: Sequence[Member] = (),
    scoring: Scoring | None = None,
    *,
    workspace: Workspace,
    judge: Judge | None = None,
    engine: EngineSettings = _HERE,
) -> tuple[Artifact, Artifact]:
    """Train a base model on a dataset's training split and return the run and what was trained (an adapter, or a model with a head).

    Started again in the same workspace it continues from the last checkpoint with the very numbers that an uninterrupted run would have had (same machine,
    same number of threads). `teacher` is the model that `settings.teacher` names. `members` are those of a joint training, this dataset's project among them;
    what one of them has trained already is not trained again. `scoring` measures what `settings.validation.tasks` name. `judge` is told the step and what was
    found at each validation; where it returns True the training ends as pruned, which the run's facts say. `engine` says how the weights lie over the
    processes and whether workers of Ray train; nothing of it changes a result. Raises InputError if nothing can be trained or a judge is given to one of
    several processes, ModelError if another process of the same training ends.
    """
    if judge is not None and processes() > 1:
        raise InputError("a training that is judged on its way is not shared by several processes\n    -> run metier sweep without a launcher")
    members = _ordered(members, settings)
    if bool(settings.validation.tasks) != (scoring is not None):
        raise InputError("training.validation.tasks names tasks, and what asks them was not given\n    -> give both, or neither")
    if engine.training_workers > 1:
        return _on_ray(
            _Given(workspace.store.root, workspace.key, workspace.code, dataset, base, settings, teacher, tuple(members), scoring, engine), workspace.progress
        )
    named = None if teacher is None else (teacher.name, teacher.digest)
    key = parts_key(members, base, settings, teacher, workspace.code)
    found = find_parts(members, key)
    if found is None:
        places = tuple((member.project, os.path.relpath(member.store.root, workspace.store.root), member.dataset.digest) for member in members)
        sharded = engine.distribution == "sharded"
        with leading(Job(workspace.key, dataset.digest, settings.model_dump_json(), (base.name, base.digest), named, sharded, places)):
            prepared = _prepare(dataset, base, settings, teacher, members, workspace, sharded=sharded, scoring=scoring)
            prepared.trainer.judge = judge
            prepared.trainer.run()
        if not members or isinstance(prepared, Labelling):
            return prepared.commit(workspace)
        found = keep_parts(prepared, _own(members, dataset), key)
    else:
        workspace.progress.say(f"taken from the joint training of {found.trained_by}: same projects, data, base model and settings")
    return commit_part(found, members, _own(members, dataset), base, settings, workspace=workspace)


def _own(members: Sequence[Member], dataset: Artifact) -> Member:
    return next(member for member in members if member.dataset.digest == dataset.digest)


def _ordered(members: Sequence[Member], settings: TrainingSettings) -> Sequence[Member]:
    """Return the members by name. Raises InputError where they are not those that the settings speak of, or two have the same data."""
    if bool(members) != bool(settings.adaptation.joint.projects):
        raise InputError("training.adaptation.joint.projects names projects, and the datasets of these were not given\n    -> give all of them, or none")
    ordered = sorted(members, key=lambda member: member.project)
    for place, member in enumerate(ordered):
        for other in ordered[place + 1 :]:
            if member.dataset.digest == other.dataset.digest or member.project == other.project:
                raise InputError(
                    f"{member.project} and {other.project} have the same data, or the same name\n    -> take one out of training.adaptation.joint.projects"
                )
    return ordered


def _on_ray(given: _Given, progress: Progress) -> tuple[Artifact, Artifact]:
    """Let workers of Ray train, of which the first leads; this process only shows how far they are."""
    ray = engine_of(given.engine)
    assert isinstance(ray, Ray), "training_workers is refused for other engines"
    alone = replace(given, engine=given.engine.model_copy(update={"training_workers": 1}))
    run, trained = together(ray, given.engine.training_workers, _take_part, alone, progress)
    return run, trained


def _take_part(given: _Given, progress: Progress) -> tuple[Artifact, Artifact] | None:
    """Train as one of several workers, which know from their environment who leads."""
    store = Store(given.store)
    if following():
        follow(store)
        return None
    workspace = replace(store.workspace(given.key, progress), code=given.code)
    return train(given.dataset, given.base, given.settings, given.teacher, given.members, given.scoring, workspace=workspace, engine=given.engine)


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
        members = [_member(project, Store(store.root / place), digest) for project, place, digest in job.members]
        _prepare(dataset, base, settings, teacher, members, store.workspace(job.key, SILENT), sharded=job.sharded).trainer.run()


def _member(project: str, store: Store, dataset: str) -> Member:
    return Member(project, store.open("dataset", dataset), store)


def _prepare(
    dataset: Artifact,
    base: Base,
    settings: TrainingSettings,
    teacher: Base | None,
    members: Sequence[Member],
    workspace: Workspace,
    *,
    sharded: bool,
    scoring: Scoring | None = None,
) -> Answering | Labelling:
    prepared: Answering | Labelling
    if settings.task != "generation":
        prepared = prepare_labels(dataset, base, settings, settings.task, teacher, workspace=workspace, sharded=sharded)
    else:
        prepared = prepare_answers(dataset, base, settings, teacher, members, workspace=workspace, sharded=sharded, scoring=scoring)
    give_back_memory()
    return prepared
