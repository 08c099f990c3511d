"""Training for labels and spans: a dataset and a base model in, a run and a model with a head out. The loop is the one of every task."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from metier.artifacts import Artifact
from metier.digest import digest_of
from metier.errors import Fault, InputError
from metier.models import Base, load_tokenizer
from metier.models.heads import Layout, is_encoder, layout_of, load_with_head, longest, outline, whole_in_single_precision
from metier.models.labelfiles import save_trained
from metier.models.labels import Labelling as Labels
from metier.models.labels import LabelTask
from metier.models.methods import MethodName, Tuned, attach_method, check_method
from metier.models.words import TextReader
from metier.progress import Progress
from metier.shards import dataset_records, write_drops
from metier.store import Workspace, remove_folder
from metier.training.classweights import check_objectives, class_weights
from metier.training.crew import accelerator
from metier.training.curriculum import plan_course
from metier.training.effective import Effective, placed, read_later, resolve, settled_for_labels, share_out, virtual_tokens
from metier.training.examples import Examples
from metier.training.facts import facts_of, named
from metier.training.labelled import encode_labelled, fit_labelling
from metier.training.labelteacher import teacher_of
from metier.training.objectives import Objective, label_objective, taught_losses
from metier.training.private import promised
from metier.training.reading import noted, nothing_to_train, validation_sample
from metier.training.scoring import label_doubt, label_scorer
from metier.training.settings import ObjectiveSettings, TrainingSettings
from metier.training.support import unlabelled
from metier.training.tokenised import FOLDER, tokenised
from metier.training.trainer import Trainer

__all__ = ["Labelling", "check_read", "label_method", "labelled_examples", "let_learn", "prepare_labels"]

_READING = 1


@dataclass(frozen=True, slots=True)
class Labelling:
    """A training for labels that is ready to run, and what is to be said of it."""

    trainer: Trainer
    dataset: Artifact
    base: Base
    labels: Labels
    effective: Effective
    tuned: Tuned | None
    """What the method trains beside the head; None: every weight is trained."""
    asked: TrainingSettings
    tokenizer: Any
    teacher: Base | None

    def commit(self, workspace: Workspace) -> tuple[Artifact, Artifact]:
        """Hand in the run and the model of a training that has ended."""
        trainer, dataset, base = self.trainer, self.dataset, self.base
        taught = trainer.course.taught
        run_folder = workspace.folder / "run"
        run_folder.mkdir(exist_ok=True)
        write_drops(run_folder / "drops.parquet", taught.drops)
        trainer.hand_in(run_folder)
        facts = _facts(self) | {"dropped": len(taught.drops), "widened_spans": taught.widened}
        parents = [dataset.digest, base.digest, *([] if self.teacher is None else [self.teacher.digest])]
        run = workspace.commit("run", run_folder, parents=parents, facts=facts)
        folder = workspace.folder / "adapter"
        remove_folder(folder)
        save_trained(trainer.model, folder, self.labels, base=base, tuned=self.tuned, tokenizer=self.tokenizer)
        about = {key: facts[key] for key in ("base", "template", "task", "labels", "trainable_parameters")}
        about |= {"method": self.effective.method} | self.effective.sizes
        return run, workspace.commit("adapter", folder, parents=[run.digest, dataset.digest, base.digest], facts=about)


def prepare_labels(
    dataset: Artifact,
    base: Base,
    settings: TrainingSettings,
    task: LabelTask,
    teacher: Base | None = None,
    *,
    workspace: Workspace,
    sharded: bool = False,
) -> Labelling:
    """Return the training of a model with a head on a dataset's training split. `teacher` is the model that `settings.teacher` names.

    Raises InputError for data without labels, overlapping spans or settings that nothing reads, all faults of the data at once, and ModelError for
    a base model that the method cannot be put on and for a teacher that answers something else, before a model is loaded.
    """
    count = itertools.count()  # Counted on the way: the records are read once for both.
    counted = (record for record, _ in zip(dataset_records(dataset, "train"), count, strict=False))
    labels = fit_labelling(counted, task, min(settings.batch.maximum_tokens, longest(base)), settings.privacy)
    check_objectives(settings, labels)
    heard = None if teacher is None else teacher_of(teacher, labels)
    joined = accelerator()
    method = label_method(settings, encoder=is_encoder(base))
    check_read(settings, method)
    effective = resolve(settings, method, next(count), joined.device.type)
    check_method(outline(base, labels), method, effective.shape)
    whole = method == "full"
    given: dict[str, Any] = {"seed": settings.seed, "frozen": not whole, "later": read_later(settings, workspace, sharded=sharded)}
    model = placed(load_with_head(base, labels, torch.float32 if whole else effective.dtype, **given), joined.device)
    layout = layout_of(model, labels)
    tokenizer = load_tokenizer(base)
    reader = TextReader(tokenizer, virtual=virtual_tokens(settings, method))
    taught = labelled_examples(dataset, base, labels, reader, layout, kept=workspace.kept(FOLDER), progress=workspace.progress)
    sample = validation_sample(dataset, settings.validation.limit)
    settled = settled_for_labels(settings, method, taught, encoder=is_encoder(base), whole=not labels.by_word)
    with joined.main_process_first():
        if heard is not None:
            about: dict[str, Any] = {"file": workspace.folder / "teacher.npy", "dtype": effective.dtype, "device": str(joined.device)}
            taught = heard.teach(taught, dataset_records(dataset, "train"), labels, progress=workspace.progress, **about)
        checks = encode_labelled(sample, reader, labels, layout)
        promise, course = (None, plan_course(taught, checks, settled)) if settings.privacy.epsilon is None else promised(taught, settled, workspace)
    half = effective.dtype if whole and effective.dtype != torch.float32 else None
    objective = partial(_objective, labels, layout, taught, half)
    with joined.main_process_first():
        effective = share_out(effective, model, taught, settings, objective(settings.objectives), workspace)
    tuned = let_learn(model, effective, settings.seed)
    trainer = Trainer(
        placed(model, joined.device),
        course,
        settled,
        workspace,
        joined,
        objective=objective,
        losses=taught_losses(labels, layout, compute=half),
        tuned=tuned,
        promise=promise,
        score=label_scorer(labels, reader, sample, device=str(joined.device)),
        doubt=None if promise else label_doubt(labels, reader, sample, device=str(joined.device)),  # It would tell of records without noise.
        sharded=sharded,
    )
    return Labelling(trainer, dataset, base, labels, effective, tuned, settings, tokenizer, teacher)


def _objective(labels: Labels, layout: Layout, taught: Examples, compute: torch.dtype | None, objectives: ObjectiveSettings) -> Objective:
    weights = class_weights(objectives, labels, taught.examples)
    return label_objective(labels, layout, objectives, weights=weights, compute=compute)


def labelled_examples(dataset: Artifact, base: Base, labels: Labels, reader: TextReader, layout: Layout, *, kept: Path | None, progress: Progress) -> Examples:
    """Return the examples of the training split; what was tokenised before is taken from `kept`. Raises InputError where there are none."""
    about = {"dataset": dataset.digest, "labelling": asdict(labels), "layout": asdict(layout), "reading": _READING, "virtual": reader.virtual, "split": "train"}

    def train(path: Path | None) -> Examples:
        return encode_labelled(noted(dataset_records(dataset, "train"), progress), reader, labels, layout, path=path)

    taught = tokenised(kept, base, about, train)
    if taught.widened:
        progress.say(f"note: {taught.widened} spans begin or end inside a word; the whole word is taught")
    if taught.drops:
        progress.say(f"note: {len(taught.drops)} records are left out of training; the run's drops.parquet says why")
    if not len(taught):
        raise nothing_to_train(taught, "look at the data with: metier data inspect, or split long records: prepare.lengths.over: split")
    return taught


def label_method(settings: TrainingSettings, *, encoder: bool) -> MethodName:
    """Return the method that labels are taught by: without one named, an encoder is trained whole, a decoder by low-rank adapters."""
    return "full" if settings.method == "auto" and encoder else settings.taught_by


def check_read(settings: TrainingSettings, method: str) -> None:
    """Raise InputError with every setting that nothing would read."""
    faults = [
        Fault(f"{settings.task} is trained by {method} without `{key}`", key=f"training.{key}", remedy="take it out")
        for key in settings.adaptation.unread_by(method)
    ]
    faults.extend(
        Fault(f"{settings.task} is taught without `replay.{item.key}`: {item.why}", key=f"training.replay.{item.key}", remedy=item.instead)
        for item in unlabelled(settings.replay)
    )
    if faults:
        raise InputError(faults)


def let_learn(model: Any, effective: Effective, seed: int) -> Tuned | None:
    """Let a model with a head be trained: all of it, or what the method adds and, in fp32, the head, beside frozen weights in the quicker format."""
    if effective.method == "full":
        model.requires_grad_(True)
        return None
    tuned = attach_method(model, effective.method, effective.shape, seed=seed)
    whole_in_single_precision(model)
    for name in model.trained_whole:
        model.get_submodule(name).requires_grad_(True)
    return tuned


def _facts(made: Labelling) -> dict[str, Any]:
    labels, base, effective = made.labels, made.base, made.effective
    resolved = made.trainer.settings.model_dump(mode="json") | {"method": effective.method, "precision": effective.precision}
    resolved["batch"]["rows"] = made.trainer.settings.batch.rows_of_step
    resolved["adaptation"] |= effective.sizes | {"ranks": dict(effective.shape.ranks)}
    return {
        "base": named(base),
        "teacher": None if made.teacher is None else named(made.teacher),
        # How a text becomes tokens: what chat templates are for conversations.
        "template": digest_of({"reading": _READING, "by_word": labels.by_word}),
        "task": labels.task,
        "labels": list(labels.labels),
        "settings": {"asked": made.asked.model_dump(mode="json", exclude_unset=True), "effective": resolved},
    } | facts_of(made.trainer)
