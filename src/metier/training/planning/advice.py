"""The plan of a training: what there is to learn, whether prompting would do, the method, and what it takes here and elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache as cached
from pathlib import Path
from typing import Any

import torch

import metier
from metier.artifacts import Artifact
from metier.models import Base, Chat, LocalModel, load_tokenizer
from metier.progress import SILENT, Progress
from metier.shards import dataset_records
from metier.training.curriculum import Course, plan_course
from metier.training.environment import give_back_memory
from metier.training.examples import Examples
from metier.training.members import Member, examples_together
from metier.training.planning.ask import Ask
from metier.training.planning.decide import Aims, Decision, Situation, decide
from metier.training.planning.gap import Gap, measure_gaps, propose_stages
from metier.training.planning.hardware import Machine, accelerators, resident_bytes, this_machine
from metier.training.planning.kept import data_facts, estimated, known
from metier.training.planning.labels import LabelCase, advise_labels
from metier.training.planning.measure import Calibration, calibrate, chosen_rows
from metier.training.planning.memory import Means, Memory, RowShape, cache_bytes, code_bytes, lengthened, memory
from metier.training.planning.methods import Method, available, check_targets, method_of, trainable_parameters
from metier.training.planning.prompting import Searcher, conclude, families, measure_prompting, verdict
from metier.training.planning.shape import ModelShape, parameters, read_shape
from metier.training.planning.together import Together
from metier.training.planning.work import Load, beside, forward_flops, load_of, training_flops
from metier.training.reading import examples_of
from metier.training.settings import TrainingSettings
from metier.training.tokenised import FOLDER

__all__ = ["advise"]


@dataclass(frozen=True, slots=True)
class _Case:
    """The training that is planned. `held` is what the process holds before it loads the model, and the most that it ever held, in bytes.

    `virtual` are the virtual tokens that already stand before each example of `load`.
    """

    base: Base
    shape: ModelShape
    settings: TrainingSettings
    course: Course
    load: Load
    machine: Machine
    held: tuple[int, int]
    virtual: int = 0

    @property
    def taught(self) -> Examples:
        """What is learnt from."""
        return self.course.taught

    @property
    def passes(self) -> float:
        """How often an example is read on average."""
        return len(self.course.plan.steps.places) / len(self.taught) if self.settings.stages else self.settings.epochs

    def rows(self, method: Method) -> list[RowShape]:
        """The rows of all steps as this method would read them, with its own virtual tokens."""
        return [lengthened(row, method.virtual - self.virtual) for row in self.load.rows]

    @property
    def means(self) -> Means:
        """How the loop works on this machine."""
        return self.means_on(self.machine)

    def means_on(self, machine: Machine) -> Means:
        """How the loop would work on a machine."""
        return Means(
            machine.precision,
            self.settings.batch.rows_of_step,
            any(stage.settings.adaptation.dropout > 0 for stage in self.course.stages),
            machine.accelerator,
            len(self.load.rows),
        )


def advise(
    dataset: Artifact,
    base: Base,
    settings: TrainingSettings,
    ask: Ask,
    *,
    searcher: Searcher,
    members: Sequence[Member] = (),
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Return the plan as JSON values.

    `members` are those of a joint training (`training.adaptation.joint`), this dataset's project among them: all their examples are counted, and what
    prompting would do is asked of this project's. `searcher` makes the search that finds the nearest solved examples. `cache` is a folder in which
    measurements are kept and found again; what is tokenised is kept beside it, where training looks for it. Where nothing is measured nothing is kept. Raises
    InputError if nothing can be trained, ModelError if the model cannot be planned for or loaded.
    """
    kept = cache.parent / FOLDER if cache is not None and ask.measure else None
    if settings.task != "generation":
        return advise_labels(LabelCase(dataset, base, settings, kept, progress), ask, searcher=searcher, cache=cache)
    together = Together.of(members, settings)
    case = _case(dataset, base, settings, members, kept, progress)
    asked = method_of(settings, len(case.taught))
    check_targets(case.shape, asked)
    measured = _calibration(case, asked, cache if ask.measure else None, progress) if ask.measure else None
    decision = _decision(case, ask.aims, measured)
    opened = _opening(base)
    prompting = _prompting(dataset, base, ask, searcher, cache, opened=opened, progress=progress) if ask.measure and ask.items else None
    gaps = _gaps(dataset, base, ask, cache, opened=opened, progress=progress) if ask.measure and ask.items else None
    methods = {"project": asked} if together.whole(decision.trains) == asked else {"project": asked, "nearest": together.whole(decision.trains)}
    if together.whole(decision.method) not in methods.values():
        methods["recommended"] = together.whole(decision.method)
    machines = {"here": case.machine, **{machine.name: machine for machine in ask.others}}
    estimates = [
        _estimate(case, pair, where, measured if pair[1].name == asked.name else None, ask.prices) for where in machines.items() for pair in methods.items()
    ]
    shape, load = case.shape, case.load
    return {
        "base": {"name": base.name, "digest": base.digest, "licence": base.licence, "family": shape.family, "parameters": parameters(shape)},
        "data": data_facts(load, case.passes),
        "machine": {"name": case.machine.name, "memory_bytes": case.machine.memory, "flops": case.machine.flops, "precision_bytes": case.machine.precision},
        "calibration": None if measured is None else measured.as_facts(),
        "prompting": prompting,
        "conclusion": None if prompting is None else conclude(prompting, ask.target),
        "target": ask.target,
        "gaps": None if gaps is None else [gap.as_facts() for gap in gaps],
        "stages": None if gaps is None else propose_stages(gaps),
        "decision": asdict(together.explained(decision)),
        "warnings": _warnings(case, decision.trains, measured, ask.aims),
        "available": list(available()),
        "estimates": [row | {"ranks": together.ranks(Method(**row["method"]))} for row in estimates],
        "joint": together.facts(case.shape, method_of(settings, len(case.taught), parts=1), case.taught),
        "cache_bytes_a_token": cache_bytes(shape, 1, case.machine.precision),
    }


def _case(dataset: Artifact, base: Base, settings: TrainingSettings, members: Sequence[Member], kept: Path | None, progress: Progress) -> _Case:
    shape = read_shape(base.folder)
    chat = Chat(load_tokenizer(base), virtual=method_of(settings, 0).virtual)
    if members:
        ordered = sorted(members, key=lambda member: member.project)
        taught, checks = examples_together(ordered, base, chat, settings, progress, keep=kept is not None)
    else:
        taught, checks = examples_of(dataset, base, chat, settings, kept=kept, progress=progress)
    course = plan_course(taught, checks, settings, coming=settings.replay.written > 0)
    load = load_of(taught, course.plan, checks, row_tokens=settings.batch.row_tokens)
    virtual = chat.virtual
    del chat
    # As the training does before its first step.
    give_back_memory()
    return _Case(base, shape, settings, course, load, this_machine(settings.precision), resident_bytes() or (0, 0), virtual)


def _calibration(case: _Case, method: Method, cache: Path | None, progress: Progress) -> Calibration | None:
    """Measure the loop with the project's method on this machine; None where that cannot be done, which is said."""
    if method.name not in available():
        progress.say(f"not calibrated: {method.name} cannot be trained here")
        return None
    most = _largest(case, method, case.machine)
    if most.total + case.held[0] > case.machine.memory:
        progress.say(f"not calibrated: training would need {(most.total + case.held[0]) / 1e9:.1f} GB of {case.machine.memory / 1e9:.1f} GB")
        return None
    rows = chosen_rows(case.course.plan, case.taught, case.shape, method, case.means)
    about = [asdict(method), case.settings.adaptation.dropout, case.machine.precision, case.machine.name, torch.__version__, metier.__version__]
    about.append(case.settings.objectives.model_dump(mode="json"))
    key = {"calibration": about, "base": case.base.digest, "rows": [case.taught.lengths[list(row)].tolist() for row in rows]}

    def measure() -> dict[str, Any]:
        return calibrate(case.base, case.taught, rows, case.settings, case.shape, method=method, means=case.means, progress=progress).as_facts()

    return Calibration(**known(cache, key, measure))


def _largest(case: _Case, method: Method, machine: Machine, holes: int | None = None) -> Memory:
    means = case.means_on(machine)
    return max((memory(case.shape, method, row, means, holes=holes) for row in set(case.rows(method))), key=lambda item: item.total)


def _holes(case: _Case, known: Calibration | None) -> int | None:
    """Return what this training will lose between blocks: what the calibration lost, grown to the rows of the whole; None if not measured."""
    if known is None or known.holes is None or case.machine.accelerator:
        return None
    return known.holes + code_bytes(case.means, case.means.reads) - code_bytes(case.means, known.steps + 1)


def _flops(case: _Case, method: Method) -> float:
    """FLOPs of all steps, each as its stage has it, and of the validations between them. A teacher is not loaded for a plan, nor counted."""
    training = 0
    for stage in case.course.stages:
        readers = beside(stage.settings.objectives, case.shape, None)
        rows = (lengthened(row, method.virtual - case.virtual) for step in case.load.steps[stage.start : stage.end] for row in step)
        training += sum(training_flops(case.shape, method, row, readers=readers) for row in rows)
    return training + case.settings.validation.times * len(case.course.stages) * sum(forward_flops(case.shape, row) for row in case.load.checks)


def _decision(case: _Case, aims: Aims, measured: Calibration | None) -> Decision:
    full = Method("full")
    flops = _flops(case, full)
    hours = (flops / measured.flops if measured is not None else case.machine.seconds(flops)[1]) / 3600
    needed = _largest(case, full, case.machine).total + case.held[0]
    return decide(Situation(case.load.examples, case.machine.accelerator, case.machine.memory, needed, hours), aims)


def _warnings(case: _Case, method: Method, measured: Calibration | None, aims: Aims) -> list[str]:
    """Return what stands in the way of training by this method on this machine, each with what to do about it."""
    said = []
    machine = case.machine
    needed = _largest(case, method, machine).total + case.held[0]
    if needed > machine.memory:
        what = f"Training needs {needed / 1e9:.1f} GB and this machine has {machine.memory / 1e9:.1f} GB."
        said.append(f"{what} {_smaller(case, method) or _larger(case, method)}")
    hours = _flops(case, method) / (measured.flops if measured is not None else machine.flops * machine.shares[0]) / 3600
    if hours > aims.hours:
        fewer = case.passes * aims.hours / hours
        said.append(
            f"Training takes up to {hours:.1f} hours, more than the {aims.hours:g} that are allowed: {fewer:.2g} epochs would fit, or an accelerator (--gpu)."
        )
    return said


def _smaller(case: _Case, method: Method) -> str:
    """Return the longest packed rows that fit, as a sentence; empty if none do."""
    batch = case.settings.batch
    tokens, longest = batch.row_tokens // 2, int(case.taught.lengths.max())
    while tokens >= max(longest, 16):
        settings = case.settings.model_copy(update={"batch": batch.model_copy(update={"row_tokens": tokens})})
        course = plan_course(case.taught, case.course.checks, settings, coming=settings.replay.written > 0)
        load = load_of(case.taught, course.plan, Examples.none(), row_tokens=tokens)
        if _largest(replace(case, load=load), method, case.machine).total + case.held[0] <= case.machine.memory:
            return f"It fits with training.batch.row_tokens: {tokens}."
        tokens //= 2
    return ""


def _larger(case: _Case, method: Method) -> str:
    """Return the smallest known accelerator that holds the training, as a sentence."""
    fitting = [item for item in accelerators().values() if _largest(case, method, item).total <= item.memory]
    if not fitting:
        return "No accelerator that is known here holds it; take a smaller base model."
    return f"Shorter rows do not help; {min(fitting, key=lambda item: item.memory).name} would hold it, or take a smaller base model."


def _opening(base: Base) -> Callable[[], LocalModel]:
    """Return what opens the base model, once, when it is first needed."""
    return cached(lambda: LocalModel.open(base, device="cuda" if torch.cuda.is_available() else "cpu"))


def _gaps(dataset: Artifact, base: Base, ask: Ask, cache: Path | None, *, opened: Callable[[], LocalModel], progress: Progress) -> list[Gap]:
    key = {"gaps": ask.items, "base": base.digest, "dataset": dataset.digest, "code": metier.__version__}
    found = known(cache, key, lambda: {"gaps": [asdict(gap) for gap in measure_gaps(dataset, opened, limit=ask.items, progress=progress)]})
    return [Gap(**gap) for gap in found["gaps"]]


def _prompting(
    dataset: Artifact, base: Base, ask: Ask, searcher: Searcher, cache: Path | None, *, opened: Callable[[], LocalModel], progress: Progress
) -> list[dict[str, Any]]:
    found = families(dataset_records(dataset, "train"), dataset_records(dataset, "validation"), limit=ask.items)
    results = []
    for family in found:
        key = {
            "prompting": [family.name, ask.items, ask.shots, ask.seed, ask.target],
            "base": base.digest,
            "dataset": dataset.digest,
            "code": metier.__version__,
        }

        def measure(family: Any = family) -> dict[str, Any]:
            measured = measure_prompting(opened(), family, searcher, shots=ask.shots, seed=ask.seed, progress=progress)
            said, best = verdict(measured, ask.target)
            return {**measured.as_facts(), "verdict": said, "best": best}

        results.append(known(cache, key, measure))
    return results


def _estimate(case: _Case, asked: tuple[str, Method], where: tuple[str, Machine], measured: Calibration | None, prices: Mapping[str, float]) -> dict[str, Any]:
    (_, method), (place, machine) = asked, where
    # What was measured holds for the project's method on this machine; other methods and machines keep the range.
    rated = measured if place == "here" else None
    return estimated(
        asked,
        where,
        trained=trainable_parameters(case.shape, method),
        flops=_flops(case, method),
        needed=_largest(case, method, machine, _holes(case, rated)),
        held=case.held,
        rate=None if rated is None else rated.flops,
        prices=prices,
    )
