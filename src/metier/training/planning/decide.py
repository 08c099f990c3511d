"""Which method to train with: rules over the size of the data, the machine and the aims, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from metier.training.planning.methods import LOW_RANK, Method, available

__all__ = ["Aims", "Decision", "Resources", "Situation", "decide", "decide_labels", "resources_of"]

Resources: TypeAlias = Literal["none", "some", "ample"]
"""`ample`: training all parameters fits and ends in time. `some`: there is an accelerator, but it does not. `none`: there is not even that."""


@dataclass(frozen=True, slots=True)
class Aims:
    """What the user wants: keep the general ability or not, the longest training in hours, and what was decided beforehand."""

    general: bool
    hours: float = 24.0
    method: str | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules look at. `full_bytes` and `full_hours` are what training all parameters would take here."""

    examples: int
    accelerator: bool
    memory: int
    full_bytes: int
    full_hours: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A method with the reasons for it, what should go with it, the nearest that can be trained here, and what to do about what that lacks."""

    method: Method
    resources: Resources
    besides: tuple[str, ...]
    reasons: tuple[str, ...]
    trains: Method
    notes: tuple[str, ...]
    overridden: bool = False


def resources_of(situation: Situation, aims: Aims) -> Resources:
    """Return how much this machine can do."""
    if situation.full_bytes <= situation.memory and situation.full_hours <= aims.hours:
        return "ample"
    return "some" if situation.accelerator else "none"


def decide(situation: Situation, aims: Aims, *, many: int = 50_000, few: int = 500, methods: Sequence[str] | None = None) -> Decision:
    """Return what to train with, and what is trained instead where it cannot be done.

    More than `many` examples and ample resources: all parameters. Few examples and general ability to keep: LoRA of rank 4 to 8 with
    regularisation. No accelerator: LoRA of rank 16 to 32. Else QLoRA with augmentation. The rule for few examples comes before that for
    no accelerator, because it asks for less. Small updates learn less and forget less (Biderman et al. 2024, arXiv 2405.09673); within a
    range of ranks the size of the data decides. `methods` are those that can be trained (default: those that are installed).
    """
    resources = resources_of(situation, aims)
    method, besides, reasons = _rule(situation, aims, resources, many, few)
    overridden = aims.method is not None or aims.rank is not None
    if aims.method is not None and aims.method != method.name:
        reasons.append(f"You asked for {aims.method}; by the rules it would be {_called(method)}.")
        method = replace(method, name=aims.method)
    if aims.rank is not None and method.name in LOW_RANK:
        if aims.rank != method.rank:
            reasons.append(f"Rank {aims.rank} was given; by the rules it would be {method.rank}.")
        method = replace(method, rank=aims.rank)
    trains, notes = _nearest(method, besides, available() if methods is None else methods, many=situation.examples > many)
    return Decision(method, resources, tuple(besides), tuple(reasons), trains, tuple(notes), overridden)


def decide_labels(situation: Situation | None, aims: Aims, *, rank: int) -> Decision:
    """Return what to teach labels with. An encoder whose training fits and ends in time: all parameters. Else: LoRA of `rank`, which is that of `auto`.

    Encoders are small and made to be trained whole for one task (Devlin et al. 2019, arXiv 1810.04805); a decoder that is trained whole takes several times
    the memory for a head of a few outputs. `situation` is that of an encoder, None for a decoder.
    """
    method = Method("lora", rank=rank)
    resources: Resources = "some"
    if situation is None:
        reasons = [f"The base model is a decoder: an update of rank {rank} beside frozen weights, and a head that is trained whole."]
    else:
        resources = resources_of(situation, aims)
        full = f"all parameters need {situation.full_bytes / 1e9:.1f} GB of {situation.memory / 1e9:.1f} GB and {_hours(situation.full_hours)}"
        reasons = [f"The base model is an encoder, but {full}; the limit is {_hours(aims.hours)} (--hours)."]
        if resources == "ample":
            method = Method("full")
            reasons = [f"The base model is an encoder, made to be trained whole for a task: {full}, and this machine can do it."]
    overridden = aims.method is not None or aims.rank is not None
    if aims.method is not None and aims.method != method.name:
        reasons.append(f"You asked for {aims.method}; by the rules it would be {_called(method)}.")
        method = replace(method, name=aims.method, rank=rank)
    if aims.rank is not None and method.name in LOW_RANK and aims.rank != method.rank:
        reasons.append(f"Rank {aims.rank} was given; by the rules it would be {method.rank}.")
        method = replace(method, rank=aims.rank)
    return Decision(method, resources, (), tuple(reasons), method, (), overridden)


def _rule(situation: Situation, aims: Aims, resources: Resources, many: int, few: int) -> tuple[Method, list[str], list[str]]:
    count, gigabytes = f"{situation.examples:,}", 1e9
    full = f"all parameters would need {situation.full_bytes / gigabytes:.1f} GB of {situation.memory / gigabytes:.1f} GB and {_hours(situation.full_hours)}"
    if situation.examples > many and resources == "ample":
        return Method("full"), [], [f"{count} examples are more than {many:,}, enough to move all parameters.", f"Training {full}: this machine can do it."]
    if situation.examples < few and aims.general:
        rank = 4 if situation.examples < few // 2 else 8
        reasons = [
            f"{count} examples are fewer than {few:,}: a larger update would learn them by heart.",
            "The general ability is to be kept: a small update forgets less, and regularisation holds it near the base model.",
        ]
        return Method("lora", rank=rank), ["regularisation"], reasons
    if not situation.accelerator:
        rank = 16 if situation.examples < many // 5 else 32
        why = f"There is no accelerator, so quantised weights would save memory and cost time; {full}, and the limit is {_hours(aims.hours)} (--hours)."
        return Method("lora", rank=rank), [], [why, f"{count} examples fill an update of rank {rank}."]
    what = f"There is an accelerator, but {full}."
    if resources == "ample":
        what = f"This machine could train all parameters, but {count} examples are not more than {many:,}."
    return Method("qlora", rank=16), ["augmentation"], [what, "Quantised frozen weights leave memory for longer rows; augmentation makes more of the data."]


def _called(method: Method) -> str:
    return f"{method.name} of rank {method.rank}" if method.name in LOW_RANK else method.name


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.0f} hours"


def _nearest(method: Method, besides: Sequence[str], methods: Sequence[str], *, many: bool) -> tuple[Method, list[str]]:
    """Return the nearest method that can be trained and what it lacks against what was decided."""
    notes = []
    trains = method
    if method.name not in methods:
        rank = 32 if method.name in {"full", "partial"} or many else method.rank
        trains = replace(method, name="lora", rank=rank, targets="all-linear")
        why = ", which needs bitsandbytes (pip install 'metier[qlora]')" if method.name == "qlora" else ""
        notes.append(f"{method.name} cannot be trained here{why}. The nearest that can: {_called(trains)} on all linear layers.")
    if "regularisation" in besides:
        notes.append("For regularisation, set training.objectives.kl above 0, mix general records in (prepare.mix.replay) and look at the retention task.")
    if "augmentation" in besides:
        notes.append("Variants of records are a step of the preparation: prepare.augment.")
    return trains, notes
