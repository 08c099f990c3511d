"""The main path: from sources to a measured expert and a decision on it. The one module that knows the order of the stages.

A stage takes artefacts and settings and returns artefacts; stages know nothing of each other. Every artefact is handed to a recorder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from metier import compliance, evaluation, models, packs, people, prepare, registry, sources, training
from metier.artifacts import Artifact
from metier.engines import LOCAL, Engine
from metier.errors import GateRefused, InputError, ModelError, StoreError
from metier.events import Record
from metier.progress import SILENT, Progress
from metier.project import Project, companions, members_of
from metier.stages import Recorder, Stages, ignore, name_of
from metier.store import Workspace

__all__ = ["Goal", "Outcome", "approve", "author", "chosen_by", "dossier", "newest", "open_expert", "planned", "release", "run"]

Goal: TypeAlias = Literal["dataset", "adapter", "evaluation", "decision"]
Ledger: TypeAlias = Callable[[], compliance.LedgerFacts] | None
"""Verifies the log of events and says what was found."""

_GOALS: tuple[Goal, ...] = ("dataset", "adapter", "evaluation", "decision")
_ROOMS = ("prepare", "training", "evaluation", "compliance")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the main path returned, as far as it was asked to go."""

    project: str
    seconds: float
    dataset: Artifact
    run: Artifact | None = None
    adapter: Artifact | None = None
    evaluation: Artifact | None = None
    evidence: Artifact | None = None
    decision: Artifact | None = None
    release: Artifact | None = None


def run(
    project: Project,
    *,
    goal: Goal = "decision",
    recorder: Recorder = ignore,
    ledger: Ledger = None,
    engine: Engine = LOCAL,
    progress: Progress = SILENT,
    online: bool = False,
) -> Outcome:
    """Walk the main path as far as `goal`, making only what is not there yet, and return what was made.

    A decision may say no: that is a result, not an error. `ledger` verifies the log of events; without it that control waits.
    Raises MetierError of the kind that fits (see metier.errors); BusyError if another process works in the project.
    """
    began = time.monotonic()
    if training.processes() > 1 and project.settings.engine.training_workers > 1:
        remedy = "start the command by itself, or take engine.training_workers out"
        raise InputError(f"a launcher has started several processes, and engine.training_workers would start more in each\n    -> {remedy}")
    pack, origin = _inputs(project)
    if goal != "dataset" and not online:
        # Said before hours of preparation, not after them.
        for name in (project.settings.base, project.settings.training.teacher):
            if name is not None:
                models.look_for(name, root=project.root)
    # Each companion's dataset under its own lock, and before this project is held: two that name each other do not wait for each other.
    others = () if goal == "dataset" else members_of(project, partial(_base, online=online, progress=progress), partial(_dataset, engine, online, progress))
    named = partial(_found, project, online=online, progress=progress)
    with project.store.lock():
        stage = Stages(project.store, recorder, progress)
        made = _walk(project, goal, stage, pack, origin, engine=engine, named=named, ledger=ledger, members=lambda: others)
    outcome = Outcome(project.settings.project, time.monotonic() - began, *made)
    return outcome if outcome.decision is None else replace(outcome, release=registry.released(project.store, outcome.decision))


def planned(project: Project, *, goal: Goal = "decision", ledger: Ledger = None) -> dict[str, tuple[Artifact, ...] | None]:
    """Return for each stage up to `goal`, in order, what it returned for the present inputs, or None where it would run. Writes nothing.

    Raises MetierError as `run` does for inputs that cannot be used.
    """
    pack, origin = _inputs(project)
    stages: dict[str, tuple[Artifact, ...] | None] = dict.fromkeys(_ROOMS[: _GOALS.index(goal) + 1])
    finder = Stages(project.store)

    def find(function: Callable[..., Any], *inputs: Any, **_: Any) -> tuple[Artifact, ...]:
        found = finder.store.find(finder.key(function, inputs))
        stages[name_of(function)] = found
        if found is None:
            raise _WouldRunError
        return found

    if goal != "dataset":
        companions(project)  # what does not fit is said although nothing runs
    with contextlib.suppress(_WouldRunError):
        _walk(project, goal, find, pack, origin, engine=LOCAL, named=partial(_at_hand, project), ledger=ledger, members=partial(_members_there, project))
    return stages


def newest(project: Project, kind: Literal["dataset", "adapter"]) -> tuple[Artifact, bool]:
    """Return the artefact of the project's present data, settings and code, or failing that its newest; the flag says which.

    Raises StoreError if there is none at all.
    """
    try:
        found = planned(project, goal=kind)[_ROOMS[_GOALS.index(kind)]]
    except InputError:
        found = None
    if found is not None:
        return found[-1], True
    last = project.store.newest(kind)
    if last is None:
        # What asks for the data alone, before anything is spent, is not sent into a training.
        command = "data build" if kind == "dataset" else "run"
        raise StoreError(f"the project has no {kind} yet\n    -> make it with: metier {command} {project.root}")
    return last, False


def open_expert(project: Project, adapter: Artifact) -> models.LocalModel:
    """Return the project's base model with an adapter. Raises ModelError if it was trained on another base model."""
    base = _base(project)
    if "task" in adapter.facts:
        raise ModelError(
            f"the model labels texts ({adapter.facts['task']}) and cannot be talked to\n"
            "    -> ask it over HTTP (metier serve), or in Python (metier.models.Labeller)"
        )
    trained = adapter.facts["base"]
    if trained["digest"] != base.digest:
        raise ModelError(
            f"the adapter was trained on another base model ({trained['name']}) than {base.name}\n    -> train again with: metier run {project.root}"
        )
    return models.LocalModel.open(base, adapter.path)


def approve(
    project: Project,
    *,
    by: str,
    note: str = "",
    controls: Sequence[str] = (),
    recorder: Recorder = ignore,
    record: Record | None = None,
    ledger: Ledger = None,
) -> tuple[Artifact, Artifact]:
    """Store somebody's approval of the present evidence, decide again, and return approval and decision.

    `record` keeps the event. Raises GateRefused for the author under any writing of the name, InputError for names that are not there.
    """
    with project.store.lock():
        evidence, decision = _present(project, ledger)[-2:]
        approval = registry.approve(evidence, decision, project.store, by=by, note=note, controls=controls, record=record)
        recorder(approval)
        stage = Stages(project.store, recorder)
        pack = packs.load(project.settings.pack)
        (decision,) = stage(compliance.decide, evidence, registry.approvals_of(evidence, project.store), pack, project.settings.compliance)
    return approval, decision


def release(
    project: Project,
    signer: registry.Signer,
    *,
    name: str | None = None,
    recorder: Recorder = ignore,
    record: Record | None = None,
    ledger: Ledger = None,
) -> Artifact:
    """Sign and store the release of the present expert, as `name` or under the project's own, and return it.

    Raises GateRefused, naming each control in the way, unless the present decision passes and somebody else than the author approved.
    """
    with project.store.lock():
        state = ledger() if ledger else None
        if state is not None and not state.intact:
            raise GateRefused(f"not released: the log of events does not verify: {state.fault}\n    -> metier audit verify says more")
        _, _, adapter, _, _, decision = _present(project, None if state is None else lambda: state)
        recorder(decision)
        pack = packs.load(project.settings.pack)
        made = registry.release(name or project.settings.project, decision, adapter, pack, signer, store=project.store, record=record)
        recorder(made)
    return made


def dossier(project: Project, *, ledger: Ledger = None) -> compliance.Dossier:
    """Return the dossier of the present expert, with its newest release. Raises GateRefused if nothing was decided on it yet."""
    pack, _ = _inputs(project)
    dataset, tuning, adapter, scores, evidence, decision = _present(project, ledger)
    subject = compliance.Subject(dataset, tuning, adapter, scores, _base(project))
    approvals = tuple(item for item in registry.approvals_of(evidence, project.store) if item.digest in decision.facts["approvals"])
    released = registry.released(project.store, decision)
    return compliance.Dossier(project.settings.project, pack, subject, evidence, decision, approvals, released)


def _present(project: Project, ledger: Ledger) -> tuple[Artifact, ...]:
    """Return dataset, run, adapter, evaluation, evidence and decision of the present data, settings and code. Raises GateRefused if one is missing."""
    pack, origin = _inputs(project)
    finder = Stages(project.store)

    def find(function: Callable[..., Any], *inputs: Any, **_: Any) -> tuple[Artifact, ...]:
        found = finder.store.find(finder.key(function, inputs))
        if found is None and function is compliance.decide:
            # A function of what is there and nothing else: an approval was stopped after it was stored and before it was decided on.
            return finder(function, *inputs)
        if found is None:
            raise GateRefused(f"there is no decision on the present data, settings and code\n    -> make it with: metier run {project.root}")
        return found

    try:
        return _walk(
            project, "decision", find, pack, origin, engine=LOCAL, named=partial(_found, project), ledger=ledger, members=partial(_members_there, project)
        )
    except _WouldRunError:
        what = "the data of a project that this one was trained together with has changed"
        raise GateRefused(f"{what}\n    -> train again with: metier run {project.root}") from None


class _WouldRunError(Exception):
    """A stage is not done yet, and it is only looked at."""


def _members_there(project: Project) -> tuple[training.Member, ...]:
    return members_of(project, lambda other: _at_hand(other, other.settings.base), _dataset_there)


def _dataset(engine: Engine, online: bool, progress: Progress, project: Project) -> Artifact:
    """Return the dataset of another project's present data and settings; what is there already is not made again, even while somebody works there."""
    with contextlib.suppress(_WouldRunError):
        return _dataset_there(project)
    return run(project, goal="dataset", engine=engine, progress=progress, online=online).dataset


def _dataset_there(project: Project) -> Artifact:
    found = planned(project, goal="dataset")["prepare"]
    if found is None:
        raise _WouldRunError
    return found[-1]


def _inputs(project: Project) -> tuple[packs.Pack, sources.SourceSet]:
    settings = project.settings
    pack = packs.load(settings.pack)
    compliance.rules(pack, settings.compliance)  # a misspelt control is said before hours of training, not after them
    return pack, sources.read(settings.sources, project.root, tolerance=settings.malformed, pack=pack)


def author(project: Project) -> str:
    """Return who answers for what is made in a project: the name in its file, else the user who runs this."""
    return project.settings.compliance.author or people.present_user()


def chosen_by(project: Project, pack: packs.Pack) -> evaluation.ValidationScore | None:
    """Return what measures the tasks that a project's training chooses by, None where it names none. Raises InputError for tasks that do not fit."""
    settings, given = project.settings, project.settings.training.validation
    if not given.tasks:
        return None
    return evaluation.validation_score(
        pack, settings.evaluation, settings.languages, tasks=given.tasks, metric=given.metric, limit=given.limit, project=project.root
    )


def _at_hand(project: Project, name: str) -> models.Base:
    if not models.at_hand(name):
        raise _WouldRunError
    return _found(project, name)


def _base(project: Project, online: bool = False, progress: Progress = SILENT) -> models.Base:
    return _found(project, project.settings.base, online, progress)


def _found(project: Project, name: str, online: bool = False, progress: Progress = SILENT) -> models.Base:
    return models.resolve(name, root=project.root, online=online, progress=progress)


def _walk(
    project: Project,
    goal: Goal,
    stage: Callable[..., tuple[Artifact, ...]],
    pack: packs.Pack,
    origin: sources.SourceSet,
    *,
    engine: Engine,
    named: Callable[[str], models.Base],
    ledger: Ledger = None,
    members: Callable[[], tuple[training.Member, ...]],
) -> tuple[Artifact, ...]:
    """The order of the stages. Returns dataset, run, adapter, evaluation, evidence and decision, as far as the goal goes.

    `named` finds a model by its name once it is needed: it may have to be made first. `members` are the others of a joint training.
    """
    settings = project.settings
    limit, tests = settings.training.batch.maximum_tokens, evaluation.item_files(settings.evaluation, project.root)
    scoring = None if goal == "dataset" else chosen_by(project, pack)  # what does not fit is said before anything is read
    wanted = settings.prepare if settings.training.task == "generation" else prepare.for_labels(settings.prepare)
    preparation, outside = prepare.look_outside(
        wanted, project.root, base=lambda: named(settings.base), maximum_tokens=limit, languages=settings.languages, tests=tests
    )
    (dataset,) = stage(prepare.build, origin, pack, preparation, settings.languages, outside, engine=engine)
    if goal == "dataset":
        return (dataset,)
    model, teacher = named(settings.base), settings.training.teacher
    together = (training.Member(settings.project, dataset, project.store), *others) if (others := members()) else ()
    taught_by = named(teacher) if teacher else None
    tuning, adapter = stage(training.train, dataset, model, settings.training, taught_by, together, scoring, engine=settings.engine)
    if goal == "adapter":
        return dataset, tuning, adapter
    files = evaluation.task_files_digest(settings.evaluation, project.root)
    (scores,) = stage(_evaluate, dataset, adapter, model, pack, settings.evaluation, settings.languages, tuning, files)
    if goal == "evaluation":
        return dataset, tuning, adapter, scores
    subject = compliance.Subject(dataset, tuning, adapter, scores, model)
    (evidence,) = stage(compliance.collect, subject, pack, settings.compliance, ledger() if ledger else None, author(project))
    approvals = registry.approvals_of(evidence, project.store)
    (decision,) = stage(compliance.decide, evidence, approvals, pack, settings.compliance)
    return dataset, tuning, adapter, scores, evidence, decision


def _evaluate(
    dataset: Artifact,
    adapter: Artifact,
    base: models.Base,
    pack: packs.Pack,
    settings: evaluation.EvaluationSettings,
    *rest: Any,
    workspace: Workspace,
) -> Artifact:
    """Open what was trained for the evaluation stage; of an adapter for answers one copy in memory serves as both sides.

    `rest` is the languages, the run, and the digest of task files, which only takes part in the stage's identity.
    """
    languages, tuning, _ = rest
    if "task" in adapter.facts:
        return evaluation.evaluate_labels(dataset, adapter, models.Labeller.open(base, adapter.path), pack, settings, workspace=workspace, run=tuning)
    model = models.LocalModel.open(base, adapter.path)
    return evaluation.evaluate(dataset, adapter, model, pack, settings, languages, workspace=workspace, run=tuning)
