"""The training stage: which task is taught decides which kind of model is trained."""

from __future__ import annotations

from metier.artifacts import Artifact
from metier.models import Base
from metier.store import Workspace
from metier.training.answers import train as train_answers
from metier.training.settings import TrainingSettings
from metier.training.taught import train_labels

__all__ = ["train"]


def train(dataset: Artifact, base: Base, settings: TrainingSettings, teacher: Base | None = None, *, workspace: Workspace) -> tuple[Artifact, Artifact]:
    """Train a base model on a dataset's training split and return the run and what was trained (an adapter, or a model with a head).

    Started again in the same workspace it continues from the last checkpoint with the very numbers that an
    uninterrupted run would have had (same machine, same number of threads). `teacher` is the model that `settings.distillation` names. Raises
    InputError if nothing can be trained.
    """
    if settings.task != "generation":
        return train_labels(dataset, base, settings, settings.task, workspace=workspace)
    return train_answers(dataset, base, settings, teacher, workspace=workspace)
