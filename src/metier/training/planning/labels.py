"""The plan of a training for labels and spans: would copying do, the method, and what it takes here and elsewhere.

What a step takes is counted on the model's own code without values (see `metier.training.planning.traced`), so that encoders and decoders of every family
that can be trained can be planned for.
"""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

import metier
from metier.artifacts import Artifact
from metier.errors import InputError
from metier.models import Base, load_tokenizer
from metier.models.heads import Layout, is_encoder, layout_of, load_with_head, longest, outline
from metier.models.labels import LabelTask
from metier.models.methods import METHODS, MethodName, check_method
from metier.models.words import TextReader
from metier.progress import Progress
from metier.shards import dataset_records
from metier.training.batches import row_at
from metier.training.classweights import check_objectives, class_weights
from metier.training.curriculum import Course, plan_course
from metier.training.effective import Effective, resolve, settled_for_labels
from metier.training.environment import give_back_memory
from metier.training.examples import Labelled
from metier.training.labelled import encode_labelled, fit_labelling
from metier.training.objectives import Objective, label_objective
from metier.training.planning.ask import Ask
from metier.training.planning.copying import conclude_copying, measure_copying
from metier.training.planning.decide import Aims, Decision, Situation, decide_labels
from metier.training.planning.hardware import Machine, resident_bytes, this_machine
from metier.training.planning.kept import data_facts, estimated, known
from metier.training.planning.measure import Calibration, added, spread_rows, timed
from metier.training.planning.memory import Means, Memory, RowShape, heap_holes
from metier.training.planning.methods import Method, available
from metier.training.planning.prompting import Searcher, verdict
from metier.training.planning.traced import Counted, Work, count
from metier.training.planning.work import Load, load_of, row_shape
from metier.training.reading import validation_sample
from metier.training.settings import TrainingSettings
from metier.training.taught import check_read, label_method, labelled_examples, let_learn

__all__ = ["LabelCase", "advise_labels"]

_EXACT = 4


@dataclass(frozen=True, slots=True)
class Taken:
    """What training by one method takes: trained numbers, all numbers of the model, and the FLOPs of any row."""

    method: Method
    trained: int
    every: int
    work: Work
    largest: tuple[RowShape, Counted]
    """The row that keeps most, and what it takes."""
    dtype: torch.dtype
    half: bool
    """Whether weights kept in fp32 are multiplied in bf16."""

    def memory(self, means: Means, *, holes: int | None = None) -> Memory:
        """Return the memory at the peak of training on the largest row."""
        whole = self.method.name == "full"
        row, counted = self.largest
        # Autocast keeps activations in bf16 and a copy of the weights beside them; what it leaves in fp32 makes this an upper bound.
        kept = counted.kept + (2 * self.every if self.half else 0)
        own = 0 if whole else self.trained * _EXACT
        gradients = self.trained * _EXACT if means.rows > 1 else max(0, self.trained * _EXACT - kept)
        return Memory(
            weights=self.every * (_EXACT if whole else self.dtype.itemsize),
            trained=own,
            gradients=gradients,
            optimiser=(4 if self.method.name == "adalora" else 2) * self.trained * _EXACT,
            activations=kept,
            logits=0,
            working=row.tokens * self.dtype.itemsize,
            holes=heap_holes(kept, means) if holes is None else holes,
        )


class LabelCase:
    """A training for labels that is planned."""

    def __init__(self, dataset: Artifact, base: Base, settings: TrainingSettings, kept: Path | None, progress: Progress) -> None:
        """Read the data as training reads them. Raises InputError and ModelError as training does, before a weight is loaded."""
        self.dataset, self.base, self.progress = dataset, base, progress
        self.encoder = is_encoder(base)
        task = cast("LabelTask", settings.task)
        self.name = label_method(settings, encoder=self.encoder)
        check_read(settings, self.name)
        self.labels = fit_labelling(dataset_records(dataset, "train"), task, min(settings.batch.maximum_tokens, longest(base)))
        check_objectives(settings, self.labels)
        reader = TextReader(load_tokenizer(base))
        self.layout: Layout = layout_of(outline(base, self.labels), self.labels)
        taught = labelled_examples(dataset, base, self.labels, reader, self.layout, kept=kept, progress=progress)
        self.settings = settled_for_labels(settings, self.name, taught, encoder=self.encoder, whole=not self.labels.by_word)
        checks = encode_labelled(validation_sample(dataset, settings.validation.limit), reader, self.labels, self.layout)
        self.course: Course = plan_course(taught, checks, self.settings)
        self.load: Load = load_of(taught, self.course.plan, checks, row_tokens=settings.batch.row_tokens)
        self.machine = this_machine(settings.precision)
        give_back_memory()
        self.held = resident_bytes() or (0, 0)
        self._taken: dict[tuple[Any, ...], Taken] = {}

    @cached_property
    def passes(self) -> float:
        """How often an example is read on average."""
        return len(self.course.plan.steps.places) / len(self.course.taught) if self.settings.stages else self.settings.epochs

    def asked(self) -> Method:
        """The method that the project file asks for, with `auto` resolved."""
        return self.method(self.name)

    def method(self, name: str, rank: int | None = None) -> Method:
        """Return a method with the sizes of the project file, or another rank."""
        given = self.settings.adaptation
        rank = given.rank_for(len(self.course.taught)) if rank is None else rank
        return Method(name, rank=rank, targets=given.targets, ranks=given.ranks, size=given.size, tokens=given.tokens, last=given.layers)

    def means(self, machine: Machine) -> Means:
        """How the loop works on a machine."""
        dropout = self.settings.adaptation.dropout > 0
        return Means(machine.precision, self.settings.batch.rows_of_step, dropout, machine.accelerator, len(self.load.rows))

    def effective(self, method: Method, dtype: torch.dtype) -> Effective:
        """Return the method as training resolves it, with the frozen weights in a format."""
        found = resolve(self.settings, cast("MethodName", method.name), len(self.course.taught), "cpu")
        shape = replace(found.shape, rank=method.rank, alpha=self.settings.adaptation.alpha_for(len(self.course.taught)))
        return Effective(found.method, shape, dtype)

    def objective(self, half: torch.dtype | None = None) -> Objective:
        """Return what is minimised."""
        weights = class_weights(self.settings.objectives, self.labels, self.course.taught.examples)
        return label_objective(self.labels, self.layout, self.settings.objectives, weights=weights, compute=half)

    def taken(self, method: Method, machine: Machine) -> Taken:
        """Return what a method takes on a machine. Raises InputError for methods that put virtual tokens before a text: they cannot be counted yet."""
        dtype = torch.bfloat16 if machine.precision == 2 else torch.float32
        key = (method.name, method.rank, dtype)
        if key not in self._taken:
            self._taken[key] = self._count(method, dtype)
        return self._taken[key]

    def _count(self, method: Method, dtype: torch.dtype) -> Taken:
        if method.virtual or method.name == "qlora":
            remedy = "plan for another one (--method lora), or start the training: metier train"
            raise InputError(f"what {method.name} takes for labels cannot be counted beforehand\n    -> {remedy}")
        whole = method.name == "full"
        effective = self.effective(method, torch.float32 if whole else dtype)
        check_method(outline(self.base, self.labels), method.name, effective.shape)
        model: Any = outline(self.base, self.labels, effective.dtype, frozen=not whole)
        every = sum(parameter.numel() for parameter in model.parameters())
        let_learn(model, effective, self.settings.seed)
        model = model.to("meta").train()
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        objective = self.objective()
        work = Work(model, objective, self._example, by_word=self.labels.by_word)
        return Taken(method, trained, every, work, self._largest(model, objective), effective.dtype, whole and dtype != torch.float32)

    def _example(self, length: int, answers: int) -> Labelled:
        target: Any = {"regression": 0.0, "pair": 0.0, "multi-label": tuple(0.0 for _ in self.labels.labels)}.get(self.labels.task, 0)
        kinds = tuple(int(place > length // 2) for place in range(length)) if self.labels.task == "pair" else ()
        return Labelled((1,) * length, tuple(range(answers)), (target,) * answers, kinds)

    def _largest(self, model: Any, objective: Objective) -> tuple[RowShape, Counted]:
        """Return the row that keeps most for its backward pass: the one of most tokens or the one of most pairs of them."""
        rows = list(dict.fromkeys(self.course.plan.steps.rows))
        shapes = [row_shape(self.course.taught, row) for row in rows]
        likely = {max(range(len(rows)), key=lambda place: shapes[place].tokens), max(range(len(rows)), key=lambda place: shapes[place].pairs)}
        counted = {place: count(model, objective, row_at(self.course.taught, rows[place])) for place in likely}
        place = max(counted, key=lambda item: counted[item].kept)
        return shapes[place], counted[place]

    def flops(self, method: Method, machine: Machine) -> float:
        """FLOPs of all steps and of the validations between them."""
        work = self.taken(method, machine).work
        return work.of(self.load.rows)[1] + self.settings.validation.times * len(self.course.stages) * work.of(self.load.checks)[0]

    def needed(self, method: Method, machine: Machine, holes: int | None = None) -> Memory:
        """Memory at the peak."""
        return self.taken(method, machine).memory(self.means(machine), holes=holes)

    def decide(self, aims: Aims, measured: Calibration | None) -> Decision:
        """Return what to train with, and why."""
        rank = self.settings.adaptation.rank_for(self.load.examples)
        if not self.encoder:
            return decide_labels(None, aims, rank=rank)
        full = self.method("full")
        flops = self.flops(full, self.machine)
        hours = (flops / measured.flops if measured is not None else self.machine.seconds(flops)[1]) / 3600
        needed = self.needed(full, self.machine).total + self.held[0]
        situation = Situation(self.load.examples, self.machine.accelerator, self.machine.memory, needed, hours)
        return decide_labels(situation, aims, rank=rank)

    def calibration(self, cache: Path | None) -> Calibration | None:
        """Measure ten steps of the project's method on this machine; None where that cannot be done, which is said."""
        method = self.asked()
        most = self.needed(method, self.machine).total + self.held[0]
        if most > self.machine.memory:
            self.progress.say(f"not calibrated: training would need {most / 1e9:.1f} GB of {self.machine.memory / 1e9:.1f} GB")
            return None
        taken = self.taken(method, self.machine)
        rows = spread_rows(
            self.course.plan, self.course.taught, work=lambda row: taken.work.of([row])[1], needed=lambda row: float(row.tokens + row.pairs / 1000)
        )
        about = [asdict(method), self.settings.adaptation.model_dump(mode="json"), self.machine.name, self.machine.precision, torch.__version__]
        about += [metier.__version__, self.settings.objectives.model_dump(mode="json"), asdict(self.labels)]
        key = {"calibration": about, "base": self.base.digest, "rows": [self.course.taught.lengths[list(row)].tolist() for row in rows]}
        return Calibration(**known(cache, key, lambda: self._calibrate(taken, rows).as_facts()))

    def _calibrate(self, taken: Taken, rows: list[tuple[int, ...]]) -> Calibration:
        before = resident_bytes()
        whole = taken.method.name == "full"
        effective = self.effective(taken.method, taken.dtype)
        model: Any = load_with_head(self.base, self.labels, effective.dtype, seed=self.settings.seed, frozen=not whole)
        tuned = let_learn(model, effective, self.settings.seed)
        objective = self.objective(torch.bfloat16 if taken.half else None)
        measured = timed(model, self.course.taught, rows, self.settings, objective, tuned=tuned, progress=self.progress)
        after = resident_bytes()
        del model, tuned
        gc.collect()
        counted = measured[1:] or measured
        shapes = [row_shape(self.course.taught, row) for row in rows][-len(counted) :]
        seconds, peak = sum(result.seconds for result in counted), added(before, after)
        alone = taken.memory(replace(self.means(self.machine), rows=1))
        holes = None if peak is None else peak - (alone.total - alone.holes)
        return Calibration(len(counted), taken.work.of(shapes)[1] / seconds, seconds, sum(result.tokens for result in counted), peak, holes)

    def question(self, searcher: Searcher, cache: Path | None, *, items: int, target: float, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Return whether copying would do, language by language, and what that says in sentences; nothing for numbers, pairs and spans."""
        key = {"copying": [items, seed], "task": self.labels.task, "base": self.base.digest, "dataset": self.dataset.digest, "code": metier.__version__}

        def measure() -> dict[str, Any]:
            encoder = self.base if self.encoder else None
            measured = measure_copying(self.dataset, self.labels.task, searcher, limit=items, encoder=encoder, seed=seed, progress=self.progress)
            return {"found": [item.as_facts() | dict(zip(("verdict", "best"), verdict(item, target), strict=True)) for item in measured]}

        found = known(cache, key | {"target": target}, measure)["found"]
        return found, conclude_copying(found, target)


def advise_labels(case: LabelCase, ask: Ask, *, searcher: Searcher, cache: Path | None = None) -> dict[str, Any]:
    """Return the plan as JSON values; see `metier.training.planning.advise`."""
    asked = case.asked()
    cache = cache if ask.measure else None
    measured = case.calibration(cache) if ask.measure else None
    decision = case.decide(ask.aims, measured)
    copying, conclusion = None, None
    if ask.measure and ask.items:
        copying, conclusion = case.question(searcher, cache, items=ask.items, target=ask.target, seed=ask.seed)
    methods = {"project": asked}
    if _differs(decision.method, asked):
        methods["recommended"] = case.method(decision.method.name, decision.method.rank)
    machines = {"here": case.machine, **{machine.name: machine for machine in ask.others}}
    rated = {(place, role): measured if place == "here" and role == "project" else None for place in machines for role in methods}
    estimates = [
        estimated(
            (role, method),
            (place, machine),
            trained=case.taken(method, machine).trained,
            flops=case.flops(method, machine),
            needed=case.needed(method, machine, None if (found := rated[place, role]) is None else found.holes),
            held=case.held,
            rate=None if found is None else found.flops,
            prices=ask.prices,
        )
        | {"ranks": None}
        for place, machine in machines.items()
        for role, method in methods.items()
    ]
    base, machine = case.base, case.machine
    family = "encoder" if case.encoder else "decoder"
    return {
        "task": case.labels.task,
        "labels": len(case.labels.labels),
        "base": {"name": base.name, "digest": base.digest, "licence": base.licence, "family": family, "parameters": case.taken(asked, machine).every},
        "data": data_facts(case.load, case.passes),
        "machine": {"name": machine.name, "memory_bytes": machine.memory, "flops": machine.flops, "precision_bytes": machine.precision},
        "calibration": None if measured is None else measured.as_facts(),
        "prompting": copying,
        "conclusion": conclusion,
        "target": ask.target,
        "gaps": None,
        "stages": None,
        "decision": asdict(decision),
        "warnings": _warnings(case, decision.method, measured, ask.aims),
        "available": list(available()),
        "estimates": estimates,
        "cache_bytes_a_token": None,
        "joint": None,
    }


def _differs(decided: Method, asked: Method) -> bool:
    return decided.name != asked.name or (METHODS[cast("MethodName", decided.name)].low_rank and decided.rank != asked.rank)


def _warnings(case: LabelCase, method: Method, measured: Calibration | None, aims: Aims) -> list[str]:
    """Return what stands in the way of training by this method on this machine, each with what to do about it."""
    machine, said = case.machine, []
    needed = case.needed(method, machine).total + case.held[0]
    if needed > machine.memory:
        remedy = "Shorter packed rows (training.batch.row_tokens), a low-rank method or a smaller base model need less."
        said.append(f"Training needs {needed / 1e9:.1f} GB and this machine has {machine.memory / 1e9:.1f} GB. {remedy}")
    hours = case.flops(method, machine) / (measured.flops if measured is not None else machine.flops * machine.shares[0]) / 3600
    if hours > aims.hours:
        fewer = case.passes * aims.hours / hours
        what = f"Training takes up to {hours:.1f} hours, more than the {aims.hours:g} that are allowed"
        said.append(f"{what}: {fewer:.2g} epochs would fit, or an accelerator (--gpu).")
    return said
