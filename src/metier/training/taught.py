"""Training for labels and spans: a dataset and a base model in, a run and a model with a head out. The loop is the one of every task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from metier.artifacts import Artifact
from metier.digest import digest_of
from metier.errors import Fault, InputError
from metier.models import Base, load_tokenizer
from metier.models.heads import is_encoder, layout_of, load_with_head, longest, whole_in_single_precision
from metier.models.labelfiles import LowRank, save_trained
from metier.models.labels import Labelling as Labels
from metier.models.labels import LabelTask
from metier.models.lora import attach
from metier.models.methods import METHODS
from metier.models.precision import fastest_dtype
from metier.models.words import TextReader
from metier.shards import dataset_records, write_drops
from metier.store import Workspace, remove_folder
from metier.training.answers import validation_sample
from metier.training.batches import Examples
from metier.training.classweights import check_objectives, class_weights
from metier.training.crew import accelerator
from metier.training.curriculum import plan_course
from metier.training.facts import facts_of
from metier.training.labelled import encode_labelled, fit_labelling
from metier.training.objectives import Objective, label_objective, taught_losses
from metier.training.scoring import scorer
from metier.training.settings import AdaptationSettings, ObjectiveSettings, ReplaySettings, TrainingSettings
from metier.training.trainer import Trainer

__all__ = ["Labelling", "prepare_labels"]

_FULL_RATE = 2e-4
_READING = 1
_OF_ANSWERS = ("ranks", "allocate")
"""Keys of low-rank methods that only the teaching of answers reads."""


@dataclass(frozen=True, slots=True)
class _Effective:
    """What the settings became on this data, this base model and this machine. `adapter` None: all weights are trained."""

    asked: TrainingSettings
    settings: TrainingSettings
    adapter: LowRank | None
    dtype: torch.dtype

    @property
    def method(self) -> str:
        """Name of the method."""
        return "full" if self.adapter is None else "lora"


@dataclass(frozen=True, slots=True)
class Labelling:
    """A training for labels that is ready to run, and what is to be said of it."""

    trainer: Trainer
    dataset: Artifact
    base: Base
    labels: Labels
    effective: _Effective
    tokenizer: Any

    def commit(self, workspace: Workspace) -> tuple[Artifact, Artifact]:
        """Hand in the run and the model of a training that has ended."""
        trainer, dataset, base = self.trainer, self.dataset, self.base
        taught = trainer.course.taught
        run_folder = workspace.folder / "run"
        run_folder.mkdir(exist_ok=True)
        write_drops(run_folder / "drops.parquet", taught.drops)
        trainer.hand_in(run_folder)
        facts = _facts(trainer, base, self.labels, self.effective) | {"dropped": len(taught.drops), "widened_spans": taught.widened}
        run = workspace.commit("run", run_folder, parents=[dataset.digest, base.digest], facts=facts)
        folder = workspace.folder / "adapter"
        remove_folder(folder)
        save_trained(trainer.model, folder, self.labels, base=base, adapter=self.effective.adapter, tokenizer=self.tokenizer)
        about = {key: facts[key] for key in ("base", "template", "task", "labels", "trainable_parameters")} | _method(self.effective)
        return run, workspace.commit("adapter", folder, parents=[run.digest, dataset.digest, base.digest], facts=about)


def prepare_labels(dataset: Artifact, base: Base, settings: TrainingSettings, task: LabelTask, *, workspace: Workspace, sharded: bool = False) -> Labelling:
    """Return the training of a model with a head on a dataset's training split.

    Raises InputError for data without labels, overlapping spans or a method that does not fit, all faults of the data at once, before the model
    is loaded.
    """
    encoder = is_encoder(base)
    records = list(dataset_records(dataset, "train"))
    labels = fit_labelling(records, task, min(settings.batch.maximum_tokens, longest(base)))
    check_objectives(settings, labels)
    joined = accelerator()
    effective = _resolve(settings, len(records), encoder=encoder, device=joined.device.type)
    model = _prepared(base, labels, effective)
    layout = layout_of(model, labels)
    tokenizer = load_tokenizer(base)
    reader = TextReader(tokenizer)
    taught = encode_labelled(records, reader, labels, layout)
    sample = validation_sample(dataset, settings.validation.limit)
    checks = encode_labelled(sample, reader, labels, layout)
    _say(taught, workspace)
    half = effective.dtype if effective.adapter is None and effective.dtype != torch.float32 else None

    def objective(objectives: ObjectiveSettings) -> Objective:
        weights = class_weights(objectives, labels, taught.examples)
        return label_objective(labels, layout, objectives, weights=weights, compute=half)

    trainer = Trainer(
        model.to(joined.device),
        plan_course(taught, checks, effective.settings),
        effective.settings,
        workspace,
        joined,
        objective=objective,
        losses=taught_losses(labels, layout, compute=half),
        score=scorer(labels, reader, sample, device=str(joined.device)),
        sharded=sharded,
    )
    return Labelling(trainer, dataset, base, labels, effective, tokenizer)


def _resolve(settings: TrainingSettings, examples: int, *, encoder: bool, device: str) -> _Effective:
    """Return what holds here: an encoder is trained whole unless the settings name a method, a decoder by low-rank adapters."""
    method = settings.method if settings.method != "auto" else "full" if encoder else "lora"
    if not METHODS[method].labels:
        remedy = f"write {' or '.join(name for name, facts in METHODS.items() if facts.labels)}"
        raise InputError(Fault(f"{settings.task} is not trained by the method {method!r}", key="training.method", remedy=remedy))
    unset = AdaptationSettings()
    unread = settings.adaptation.unread_by(method)
    unread += [f"adaptation.{name}" for name in _OF_ANSWERS if getattr(settings.adaptation, name) != getattr(unset, name)]
    unread += ["replay"] if settings.replay != ReplaySettings() else []
    if unread:
        raise InputError([Fault(f"{settings.task} is trained by {method} without `{key}`", key=f"training.{key}", remedy="take it out") for key in unread])
    given = settings.adaptation
    rank, alpha = given.rank_for(examples), given.alpha_for(examples)
    rate = settings.learning_rate if settings.learning_rate != "auto" else _FULL_RATE if method == "full" else METHODS[method].learning_rate
    formats = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    dtype = fastest_dtype(device) if settings.precision == "auto" else formats[settings.precision]
    return _Effective(settings, settings.model_copy(update={"learning_rate": rate}), LowRank(rank, alpha, given.dropout) if method == "lora" else None, dtype)


def _prepared(base: Base, labelling: Labels, effective: _Effective) -> Any:
    """Return the model with what is trained in fp32: all of it, or its adapters and head beside frozen weights in the quicker format."""
    settings, adapter = effective.settings, effective.adapter
    if adapter is None:
        return load_with_head(base, labelling, torch.float32, seed=settings.seed, frozen=False).requires_grad_(True)
    model: Any = load_with_head(base, labelling, effective.dtype, seed=settings.seed, frozen=True)
    attach(model, rank=adapter.rank, alpha=adapter.alpha, dropout=adapter.dropout, targets=settings.adaptation.targets, seed=settings.seed)
    whole_in_single_precision(model)
    for name in model.trained_whole:
        model.get_submodule(name).requires_grad_(True)
    return model


def _say(taught: Examples, workspace: Workspace) -> None:
    if not taught.examples:
        longest_reason = f"; all {len(taught.drops)} were left out (first: {taught.drops[0].reason})" if taught.drops else ""
        remedy = "look at the data with: metier data inspect, or split long records: prepare.lengths.over: split"
        raise InputError(Fault(f"there is no example to train on{longest_reason}", remedy=remedy))
    if taught.widened:
        workspace.progress.say(f"note: {taught.widened} spans begin or end inside a word; the whole word is taught")
    if taught.drops:
        workspace.progress.say(f"note: {len(taught.drops)} records are left out of training; the run's drops.parquet says why")


def _method(effective: _Effective) -> dict[str, Any]:
    adapter = effective.adapter
    return {"method": effective.method, "rank": None if adapter is None else adapter.rank, "alpha": None if adapter is None else adapter.alpha}


def _facts(trainer: Trainer, base: Base, labelling: Labels, effective: _Effective) -> dict[str, Any]:
    settings = trainer.settings
    sizes = _method(effective)
    resolved = settings.model_dump(mode="json") | {"method": sizes.pop("method"), "precision": str(effective.dtype).removeprefix("torch.")}
    resolved["adaptation"] |= sizes
    return {
        "base": {"name": base.name, "digest": base.digest, "licence": base.licence},
        # How a text becomes tokens: what chat templates are for conversations.
        "template": digest_of({"reading": _READING, "by_word": labelling.by_word}),
        "task": labelling.task,
        "labels": list(labelling.labels),
        "settings": {"asked": effective.asked.model_dump(mode="json", exclude_unset=True), "effective": resolved},
    } | facts_of(trainer)
