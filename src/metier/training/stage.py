"""The training stage: which task is taught decides which kind of model is trained. Other processes may follow the one that runs it."""

from __future__ import annotations

from metier.artifacts import Artifact
from metier.models import Base
from metier.progress import SILENT
from metier.store import Store, Workspace
from metier.training.answers import Answering, prepare_answers
from metier.training.crew import Job, followed, leading, receive
from metier.training.settings import TrainingSettings
from metier.training.taught import Labelling, prepare_labels

__all__ = ["follow", "train"]


def train(dataset: Artifact, base: Base, settings: TrainingSettings, teacher: Base | None = None, *, workspace: Workspace) -> tuple[Artifact, Artifact]:
    """Train a base model on a dataset's training split and return the run and what was trained (an adapter, or a model with a head).

    Started again in the same workspace it continues from the last checkpoint with the very numbers that an
    uninterrupted run would have had (same machine, same number of threads). `teacher` is the model that `settings.teacher` names. Raises
    InputError if nothing can be trained, ModelError if another process of the same training ends.
    """
    named = None if teacher is None else (teacher.name, teacher.digest)
    with leading(Job(workspace.key, dataset.digest, settings.model_dump_json(), (base.name, base.digest), named)):
        prepared = _prepare(dataset, base, settings, teacher, workspace)
        prepared.trainer.run()
    return prepared.commit(workspace)


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
        _prepare(dataset, base, settings, teacher, store.workspace(job.key, SILENT)).trainer.run()


def _prepare(dataset: Artifact, base: Base, settings: TrainingSettings, teacher: Base | None, workspace: Workspace) -> Answering | Labelling:
    if settings.task != "generation":
        return prepare_labels(dataset, base, settings, settings.task, workspace=workspace)
    return prepare_answers(dataset, base, settings, teacher, workspace=workspace)
