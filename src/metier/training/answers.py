"""Training for answers in words: a dataset and a base model in, a run and an adapter out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from metier.artifacts import Artifact
from metier.digest import canonical_json
from metier.errors import ModelError
from metier.models import Base, Chat, LocalModel, load_tokenizer, load_weights
from metier.models.chat import template_digest
from metier.models.methods import Joint, Shape, Tuned, attach_joint, attach_method
from metier.models.precision import measured_rates
from metier.models.saved import write_saved
from metier.shards import write_drops
from metier.store import Workspace, write_atomically
from metier.training.crew import accelerator
from metier.training.curriculum import plan_course
from metier.training.effective import Effective, placed, read_later, resolve, share_out, virtual_tokens
from metier.training.examples import Examples
from metier.training.facts import facts_of, named
from metier.training.members import Member, choosing, examples_together
from metier.training.objectives import Losses, answer_losses, answers_objective, cross_entropy
from metier.training.planning.methods import method_of
from metier.training.planning.shape import read_shape
from metier.training.planning.work import beside, row_shape, training_flops
from metier.training.private import promised
from metier.training.reading import examples_of
from metier.training.replay import Answered, encode_written, write_answers
from metier.training.scoring import Scoring
from metier.training.settings import TrainingSettings
from metier.training.tokenised import FOLDER
from metier.training.trainer import Trainer

__all__ = ["Answering", "commit_trained", "prepare_answers"]


@dataclass(frozen=True, slots=True)
class Answering:
    """A training for answers that is ready to run, and what is to be said of it."""

    trainer: Trainer
    tuned: Tuned
    dataset: Artifact
    base: Base
    teacher: Base | None
    template: str
    """The chat template. Its tokenizer, which may be large, is not kept: steps need none."""
    effective: Effective
    answers: list[Answered]
    """What the base model wrote to be learnt along."""

    def commit(self, workspace: Workspace) -> tuple[Artifact, Artifact]:
        """Hand in the run and the adapter of a training that has ended."""
        trainer, base = self.trainer, self.base
        run_folder = workspace.folder / "run"
        run_folder.mkdir(exist_ok=True)
        write_drops(run_folder / "drops.parquet", trainer.course.taught.drops)
        if self.answers:
            write_atomically(run_folder / "replay.jsonl", b"".join(canonical_json(asdict(item)) + b"\n" for item in self.answers))
        trainer.hand_in(run_folder)
        config = self.tuned.config() | {"base_model_name_or_path": base.name}
        sizes, tensors = self.effective.sizes, self.tuned.state()
        return commit_trained(workspace, self.dataset, base, self.template, facts=self.facts(), sizes=sizes, config=config, tensors=tensors)

    def facts(self) -> dict[str, Any]:
        """Return what the run says of the training."""
        settings, effective = self.trainer.settings, self.effective
        resolved = settings.model_dump(mode="json") | {"method": effective.method, "precision": effective.precision, "learning_rate": settings.peak_rate}
        resolved["batch"]["rows"] = settings.batch.rows_of_step
        resolved["adaptation"] |= effective.sizes | {"ranks": dict(effective.shape.ranks)}
        return (
            _work(self)
            | {
                "base": named(self.base),
                "teacher": None if self.teacher is None else named(self.teacher),
                "template": template_digest(self.template),
                "settings": {"asked": settings.model_dump(mode="json", exclude_unset=True), "effective": resolved},
                "dropped": len(self.trainer.course.taught.drops),
                "control_tokens_broken_up": self.trainer.course.taught.broken_up,
            }
            | facts_of(self.trainer)
        )


def commit_trained(
    workspace: Workspace,
    dataset: Artifact,
    base: Base,
    template: str,
    *,
    facts: Mapping[str, Any],
    sizes: Mapping[str, Any],
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> tuple[Artifact, Artifact]:
    """Hand in the run, whose files lie in the workspace's folder `run`, and its adapter of rank and alpha `sizes`, as PEFT has them in `config`."""
    teacher = facts["teacher"]
    parents = [dataset.digest, base.digest, *([teacher["digest"]] if teacher else [])]
    run = workspace.commit("run", workspace.folder / "run", parents=parents, facts=facts)
    folder = workspace.folder / "adapter"
    write_saved(folder, config, tensors)
    write_atomically(folder / "chat_template.jinja", template.encode())
    about: dict[str, Any] = {"base": named(base), "method": facts["settings"]["effective"]["method"], **sizes}
    about |= {"trainable_parameters": facts["trainable_parameters"], "template": template_digest(template)}
    return run, workspace.commit("adapter", folder, parents=[run.digest, dataset.digest, base.digest], facts=about)


def prepare_answers(
    dataset: Artifact,
    base: Base,
    settings: TrainingSettings,
    teacher: Base | None,
    members: Sequence[Member] = (),
    *,
    workspace: Workspace,
    sharded: bool = False,
    scoring: Scoring | None = None,
) -> Answering:
    """Return the training of a base model on a dataset's training split, or on those of all `members`; `scoring` is what it may choose by.

    A process that follows has no `scoring`: the one that leads says the score. Raises InputError if nothing can be trained.
    """
    chat = Chat(load_tokenizer(base), virtual=virtual_tokens(settings, settings.taught_by))
    if members:
        taught, checks = examples_together(members, base, chat, settings, workspace.progress)
    else:
        taught, checks = examples_of(dataset, base, chat, settings, kept=workspace.kept(FOLDER), progress=workspace.progress)
    if taught.broken_up:
        workspace.progress.say(f"{taught.broken_up} control tokens of the base model stood in the training texts; there they are broken up by a word joiner")
    if settings.batch.order == "shuffled" and _has_curriculum(dataset):
        workspace.progress.say("note: the dataset is ordered by a curriculum, and another order is drawn in each epoch; training.batch.order: dataset keeps it")
    # Stages that cannot be are refused before a model is loaded.
    course = plan_course(taught, checks, settings, coming=settings.replay.written > 0)
    joined = accelerator()
    effective = resolve(settings, settings.taught_by, len(taught), joined.device.type)
    model = load_weights(base, effective.dtype, later=read_later(settings, workspace, sharded=sharded))
    with joined.main_process_first():
        taught, answers = _with_written(base, model, taught, settings, workspace, joined.device)
    taught_by = _teacher(teacher, chat, effective.dtype, joined.device)
    if answers:
        course = plan_course(taught, checks, settings)
    promise = None
    if settings.privacy.epsilon:
        with joined.main_process_first():
            promise, course = promised(taught, settings, workspace)
    with joined.main_process_first():
        effective = share_out(effective, placed(model, joined.device), taught, settings, cross_entropy, workspace)
    tuned, of_row = _attached(model, settings, effective.shape, members)
    trainer = Trainer(
        placed(model, joined.device),
        course,
        settings,
        workspace,
        joined,
        objective=lambda objectives: of_row(answers_objective(objectives, tuned, taught_by)),
        losses=of_row(answer_losses),
        tuned=tuned,
        promise=promise,
        score=None if scoring is None else scoring.open(dataset, chat, device=str(joined.device), progress=workspace.progress),
        lower=scoring is not None and not scoring.higher_is_better,
        sharded=sharded,
    )
    return Answering(trainer, tuned, dataset, base, teacher, chat.template, effective, answers)


def _attached(model: Any, settings: TrainingSettings, shape: Shape, members: Sequence[Member]) -> tuple[Tuned, Callable[[Losses], Losses]]:
    """Return the trained part of a model, and what lets a measure of rows see to it that each token uses what is its own."""
    if not members:
        return attach_method(model, settings.taught_by, shape, seed=settings.seed), lambda measure: measure
    tuned: Joint = attach_joint(model, settings.taught_by, shape, own=settings.adaptation.joint.rank, members=len(members), seed=settings.seed)
    return tuned, partial(choosing, tuned)


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


def _with_written(
    base: Base, model: Any, taught: Examples, settings: TrainingSettings, workspace: Workspace, device: torch.device
) -> tuple[Examples, list[Answered]]:
    """Return the examples with the base model's own answers behind them, if they are wanted, and these answers."""
    if not settings.replay.written:
        return taught, []
    chat = Chat(load_tokenizer(base))
    writer = LocalModel(model.to(device).eval(), chat, device=str(device))
    languages = taught.groups("language")
    answers = write_answers(writer, base, settings.replay, languages, folder=workspace.kept("replay"), progress=workspace.progress)
    chat.virtual = virtual_tokens(settings, settings.taught_by)
    written = encode_written(answers, chat, settings.batch.maximum_tokens)
    workspace.progress.say(f"{len(written)} of {settings.replay.written} answers of the base model are learnt along")
    return taught.joined(written), answers


def _has_curriculum(dataset: Artifact) -> bool:
    settings = next((step["settings"] for step in dataset.facts.get("steps", ()) if step["name"] == "mix"), None)
    return settings is not None and settings["curriculum"]["by"] is not None


def _work(made: Answering) -> dict[str, Any]:
    """Return the useful FLOPs of the steps, those a second, and their share of what the processor multiplies at best (MFU); nothing for families not known."""
    trainer = made.trainer
    try:
        shape = read_shape(made.base.folder)
        teacher = None if made.teacher is None else read_shape(made.teacher.folder)
    except ModelError:
        return {}
    taught, flops = trainer.course.taught, 0
    # What the other members' own directions would have made of a token is multiplied and thrown away: it is no use.
    method = method_of(trainer.settings, len(taught), parts=1)
    for stage, steps in trainer.taken:
        readers = beside(stage.settings.objectives, shape, teacher)
        flops += sum(training_flops(shape, method, row_shape(taught, row), readers=readers) for step in steps for row in step)
    rate = flops / trainer.position.seconds
    peak = measured_rates().get(made.effective.precision) if trainer.accelerator.device.type == "cpu" else None
    return {
        "flops": flops,
        "flops_per_second": round(rate),
        "share_of_peak": None if peak is None else round(rate / peak / trainer.accelerator.num_processes, 4),
    }
