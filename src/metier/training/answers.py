"""Training for answers in words: a dataset and a base model in, a run and an adapter out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from metier.artifacts import Artifact
from metier.digest import canonical_json
from metier.errors import InputError, ModelError
from metier.models import Base, Chat, Encoded, LocalModel, load_tokenizer, load_weights
from metier.models.lora import linear_layers
from metier.models.methods import METHODS, Shape, Tuned, attach_method
from metier.models.precision import fastest_dtype, measured_rates
from metier.models.saved import write_saved
from metier.models.sensitivity import allocate, layer_gradients
from metier.shards import dataset_records, write_drops
from metier.store import Workspace, write_atomically
from metier.training.batches import Examples, encode_records, order, row_of
from metier.training.crew import accelerator
from metier.training.curriculum import Course, plan_course
from metier.training.facts import facts_of
from metier.training.gather import to_device
from metier.training.objectives import answer_losses, answers_objective, cross_entropy
from metier.training.planning.methods import method_of
from metier.training.planning.shape import read_shape
from metier.training.planning.work import row_shape, training_flops
from metier.training.private import Promise, guarantee_for, private_course, remark
from metier.training.replay import Answered, add_written, write_answers
from metier.training.settings import TrainingSettings
from metier.training.trainer import Trainer

__all__ = ["Answering", "prepare_answers", "validation_sample"]

_SAMPLE = 32
"""Examples whose gradients share out ranks."""

_MOST = 4
"""A layer gets at most so many times the rank."""


@dataclass(frozen=True, slots=True)
class _Effective:
    """What `auto` settings became on this data and this machine."""

    shape: Shape
    dtype: torch.dtype
    low_rank: bool

    def with_ranks(self, ranks: Mapping[str, int]) -> _Effective:
        """Return the same with ranks of single layers."""
        return replace(self, shape=replace(self.shape, ranks=ranks))

    @property
    def sizes(self) -> dict[str, Any]:
        """Rank and alpha, None where the method has no such thing."""
        return {"rank": self.shape.rank if self.low_rank else None, "alpha": self.shape.alpha if self.low_rank else None}


@dataclass(frozen=True, slots=True)
class Answering:
    """A training for answers that is ready to run, and what is to be said of it."""

    trainer: Trainer
    tuned: Tuned
    dataset: Artifact
    base: Base
    teacher: Base | None
    chat: Chat
    effective: _Effective
    answers: list[Answered]
    """What the base model wrote to be learnt along."""
    broken_up: int
    """Control tokens that stood in the texts."""

    def commit(self, workspace: Workspace) -> tuple[Artifact, Artifact]:
        """Hand in the run and the adapter of a training that has ended."""
        trainer, base, settings = self.trainer, self.base, self.trainer.settings
        run_folder = workspace.folder / "run"
        run_folder.mkdir(exist_ok=True)
        write_drops(run_folder / "drops.parquet", trainer.course.taught.drops)
        if self.answers:
            write_atomically(run_folder / "replay.jsonl", b"".join(canonical_json(asdict(item)) + b"\n" for item in self.answers))
        trainer.hand_in(run_folder)
        parents = [self.dataset.digest, base.digest, *([self.teacher.digest] if self.teacher else [])]
        run = workspace.commit("run", run_folder, parents=parents, facts=_facts(self))
        folder = workspace.folder / "adapter"
        write_saved(folder, self.tuned.config() | {"base_model_name_or_path": base.name}, self.tuned.state())
        write_atomically(folder / "chat_template.jinja", str(self.chat.tokenizer.chat_template).encode())
        about: dict[str, Any] = {"base": _name(base), "method": settings.taught_by} | self.effective.sizes
        about |= {"trainable_parameters": trainer.trainable, "template": self.chat.digest}
        return run, workspace.commit("adapter", folder, parents=[run.digest, self.dataset.digest, base.digest], facts=about)


def prepare_answers(
    dataset: Artifact, base: Base, settings: TrainingSettings, teacher: Base | None, *, workspace: Workspace, sharded: bool = False
) -> Answering:
    """Return the training of a base model on a dataset's training split. Raises InputError if nothing can be trained."""
    chat = Chat(load_tokenizer(base), virtual=settings.adaptation.tokens if METHODS[settings.taught_by].family == "virtual" else 0)
    taught = encode_records(dataset_records(dataset, "train"), chat, settings.batch.maximum_tokens)
    broken_up = chat.broken_up
    if broken_up:
        workspace.progress.say(f"{broken_up} control tokens of the base model stood in the training texts; there they are broken up by a word joiner")
    if settings.batch.order == "shuffled" and _has_curriculum(dataset):
        workspace.progress.say("note: the dataset is ordered by a curriculum, and another order is drawn in each epoch; training.batch.order: dataset keeps it")
    checks = encode_records(validation_sample(dataset, settings.validation.limit), chat, settings.batch.maximum_tokens)
    if not taught.examples:
        longest = f"; all {len(taught.drops)} were left out (first: {taught.drops[0].reason})" if taught.drops else ""
        raise InputError(f"there is no example to train on{longest}\n    -> look at the data with: metier data inspect, or raise training.batch.maximum_tokens")
    # Stages that cannot be are refused before a model is loaded.
    course = plan_course(taught, checks, settings, coming=settings.replay.written > 0)
    joined = accelerator()
    effective = _resolve(settings, len(taught.examples), joined.device.type)
    model = load_weights(base, effective.dtype)
    with joined.main_process_first():
        answers = _written(base, model, taught, settings, workspace, joined.device)
    taught_by = _teacher(teacher, chat, effective.dtype, joined.device)
    if answers:
        course = plan_course(taught, checks, settings)
    promise = None
    if settings.privacy.epsilon:
        with joined.main_process_first():
            promise, course = _private(taught, settings, workspace)
    with joined.main_process_first():
        effective = effective.with_ranks(_allocated(model.to(joined.device), taught, settings, effective.shape, workspace))
    tuned = attach_method(model, settings.taught_by, effective.shape, seed=settings.seed)
    trainer = Trainer(
        model.to(joined.device),
        course,
        settings,
        workspace,
        joined,
        objective=lambda objectives: answers_objective(objectives, tuned, taught_by),
        losses=answer_losses,
        tuned=tuned,
        promise=promise,
        sharded=sharded,
    )
    return Answering(trainer, tuned, dataset, base, teacher, chat, effective, answers, broken_up)


def _allocated(model: Any, taught: Examples, settings: TrainingSettings, shape: Shape, workspace: Workspace) -> Mapping[str, int]:
    """Return the ranks of single layers: those that the settings give, or those that a sample's gradients say; these are kept for a later attempt."""
    if settings.adaptation.allocate == "even":
        return shape.ranks
    file = workspace.folder / "ranks.json"
    if file.exists():
        return dict(json.loads(file.read_bytes()))
    names = linear_layers(model.eval().requires_grad_(False), shape.targets)
    chosen = order(len(taught.examples), settings.seed, "ranks")[:_SAMPLE]
    device = next(model.parameters()).device
    rows = [to_device(row_of([taught.examples[index]]), device) for index in chosen]
    task, progress = "sensitivity", workspace.progress
    progress.start(task, len(rows), "examples")
    gradients = layer_gradients(model, names, rows, partial(cross_entropy, model), lambda: progress.advance(task))
    ranks = allocate(gradients, rank=shape.rank, most=_MOST * shape.rank)
    progress.finish(task, f"ranks of {min(ranks.values())} to {max(ranks.values())}")
    write_atomically(file, canonical_json(ranks))
    return ranks


def _private(taught: Examples, settings: TrainingSettings, workspace: Workspace) -> tuple[Promise, Course]:
    guarantee, units = guarantee_for(taught, settings)
    workspace.progress.say(remark(guarantee))
    promise = Promise(guarantee, workspace.folder / "chance.secret")
    return promise, private_course(taught, settings, guarantee, units, promise.secret)


def _teacher(teacher: Base | None, chat: Chat, dtype: torch.dtype, device: torch.device) -> Any:
    """Return the loaded teacher. Raises ModelError for one whose tokens are others."""
    if teacher is None:
        return None
    if load_tokenizer(teacher).get_vocab() != chat.tokenizer.get_vocab():
        raise ModelError(
            f"the teacher {teacher.name} has other tokens than the base model, so their distributions cannot be compared\n"
            "    -> take a larger model of the same family, or let it write answers: prepare.writer"
        )
    model: Any = load_weights(teacher, dtype).to(device).eval().requires_grad_(False)
    return model


def _written(base: Base, model: Any, taught: Examples, settings: TrainingSettings, workspace: Workspace, device: torch.device) -> list[Answered]:
    """Add the base model's own answers to the examples, if they are wanted, and return them."""
    if not settings.replay.written:
        return []
    chat = Chat(load_tokenizer(base))
    writer = LocalModel(model.to(device).eval(), chat, device=str(device))
    languages = {origin.language for origin in taught.origins}
    answers = write_answers(writer, base, settings.replay, languages, folder=workspace.store.root / "replay", progress=workspace.progress)
    chat.virtual = settings.adaptation.tokens if METHODS[settings.taught_by].family == "virtual" else 0
    added = add_written(taught, answers, chat, settings.batch.maximum_tokens)
    workspace.progress.say(f"{added} of {settings.replay.written} answers of the base model are learnt along")
    return answers


def _has_curriculum(dataset: Artifact) -> bool:
    settings = next((step["settings"] for step in dataset.facts.get("steps", ()) if step["name"] == "mix"), None)
    return settings is not None and settings["curriculum"]["by"] is not None


def validation_sample(dataset: Artifact, limit: int) -> list[Any]:
    """Return the validation examples in the order of their ids, which are digests: a fixed random sample."""
    return sorted(dataset_records(dataset, "validation"), key=lambda record: record.id)[:limit]


def _resolve(settings: TrainingSettings, examples: int, device: str) -> _Effective:
    formats = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    given = settings.adaptation
    rank, alpha = given.rank_for(examples), given.alpha_for(examples)
    shape = Shape(
        rank=rank,
        alpha=alpha,
        dropout=given.dropout,
        targets=given.targets,
        ranks=given.ranks,
        layers=given.layers,
        head=given.head,
        size=given.size,
        tokens=given.tokens,
        gate=given.gate,
    )
    dtype = fastest_dtype(device) if settings.precision == "auto" else formats[settings.precision]
    return _Effective(shape, dtype, METHODS[settings.taught_by].low_rank)


def _work(made: Answering) -> dict[str, Any]:
    """Return the useful FLOPs of the steps, those a second, and their share of what the processor multiplies at best (MFU); nothing for families not known."""
    trainer = made.trainer
    try:
        shape = read_shape(made.base.folder)
    except ModelError:
        return {}
    taught, method = trainer.course.taught.examples, method_of(trainer.settings, len(trainer.course.taught.examples))
    rows = [row for step in trainer.steps_taken for row in step]
    diverging = trainer.settings.objectives.kl > 0
    flops = sum(training_flops(shape, method, row_shape([cast("Encoded", taught[index]) for index in row]), diverging=diverging) for row in rows)
    rate = flops / trainer.position.seconds
    peak = measured_rates().get(str(made.effective.dtype).removeprefix("torch.")) if trainer.accelerator.device.type == "cpu" else None
    return {
        "flops": flops,
        "flops_per_second": round(rate),
        "share_of_peak": None if peak is None else round(rate / peak / trainer.accelerator.num_processes, 4),
    }


def _name(model: Base | None) -> dict[str, str] | None:
    return None if model is None else {"name": model.name, "digest": model.digest, "licence": model.licence}


def _facts(made: Answering) -> dict[str, Any]:
    settings, effective = made.trainer.settings, made.effective
    dtype = str(effective.dtype).removeprefix("torch.")
    resolved = settings.model_dump(mode="json") | {"method": settings.taught_by, "precision": dtype, "learning_rate": settings.peak_rate}
    resolved["adaptation"] |= effective.sizes | {"ranks": dict(effective.shape.ranks)}
    return (
        _work(made)
        | {
            "base": _name(made.base),
            "teacher": _name(made.teacher),
            "template": made.chat.digest,
            "settings": {"asked": settings.model_dump(mode="json", exclude_unset=True), "effective": resolved},
            "dropped": len(made.trainer.course.taught.drops),
            "control_tokens_broken_up": made.broken_up,
        }
        | facts_of(made.trainer)
    )
