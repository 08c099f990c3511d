"""The main path: from sources to a measured expert. The one module that knows the order of the stages.

A stage takes artefacts and settings and returns artefacts; stages know nothing of each other. What a stage returned for the
same inputs, settings, code and pack is not made again. Every artefact is handed to a recorder.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from metier import evaluation, models, packs, prepare, sources, training
from metier.artifacts import Artifact
from metier.config import Settings, settings_digest
from metier.digest import digest_file, digest_of
from metier.engines import LOCAL, Engine
from metier.errors import InputError, ModelError, StoreError
from metier.progress import SILENT, Progress
from metier.project import Project
from metier.store import Store, Workspace

__all__ = ["Goal", "Outcome", "Recorder", "Stages", "newest", "open_expert", "planned", "run"]

Recorder: TypeAlias = Callable[[Artifact], None]
Goal: TypeAlias = Literal["dataset", "adapter", "evaluation"]

_GOALS: tuple[Goal, ...] = ("dataset", "adapter", "evaluation")
_ROOMS = ("prepare", "training", "evaluation")


def _ignore(_: Artifact) -> None:
    """Record nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the main path returned, as far as it was asked to go."""

    project: str
    seconds: float
    dataset: Artifact
    run: Artifact | None = None
    adapter: Artifact | None = None
    evaluation: Artifact | None = None


def run(
    project: Project,
    *,
    goal: Goal = "evaluation",
    recorder: Recorder = _ignore,
    engine: Engine = LOCAL,
    progress: Progress = SILENT,
    online: bool = False,
) -> Outcome:
    """Walk the main path as far as `goal`, making only what is not there yet, and return what was made.

    Raises MetierError of the kind that fits (see metier.errors); BusyError if another process works in the project.
    """
    began = time.monotonic()
    pack, origin = _inputs(project)
    with project.store.lock():
        stage = Stages(project.store, recorder, progress)
        made = _walk(project, goal, stage, pack, origin, engine=engine, base=lambda: _base(project, online, progress))
    return Outcome(project.settings.project, time.monotonic() - began, *made)


def planned(project: Project, *, goal: Goal = "evaluation") -> dict[str, tuple[Artifact, ...] | None]:
    """Return for each stage up to `goal`, in order, what it returned for the present inputs, or None where it would run. Writes nothing.

    Raises MetierError as `run` does for inputs that cannot be used.
    """
    pack, origin = _inputs(project)
    stages: dict[str, tuple[Artifact, ...] | None] = dict.fromkeys(_ROOMS[: _GOALS.index(goal) + 1])
    finder = Stages(project.store)

    def find(function: Callable[..., Any], *inputs: Any, **_: Any) -> tuple[Artifact, ...]:
        found = finder.store.find(finder.key(function, inputs))
        if found is None:
            raise _WouldRunError
        stages[_name(function)] = found
        return found

    def base() -> models.Base:
        if not models.at_hand(project.settings.base):
            raise _WouldRunError
        return _base(project)

    with contextlib.suppress(_WouldRunError):
        _walk(project, goal, find, pack, origin, engine=LOCAL, base=base)
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
        raise StoreError(f"the project has no {kind} yet\n    -> make it with: metier run {project.root}")
    return last, False


def open_expert(project: Project, adapter: Artifact) -> models.LocalModel:
    """Return the project's base model with an adapter. Raises ModelError if it was trained on another base model."""
    base = _base(project)
    trained = adapter.facts["base"]
    if trained["digest"] != base.digest:
        raise ModelError(
            f"the adapter was trained on another base model ({trained['name']}) than {base.name}\n    -> train again with: metier run {project.root}"
        )
    return models.LocalModel.open(base, adapter.path)


class _WouldRunError(Exception):
    """A stage is not done yet, and it is only looked at."""


def _inputs(project: Project) -> tuple[packs.Pack, sources.SourceSet]:
    settings = project.settings
    return packs.load(settings.pack), sources.read(settings.sources, project.root, tolerance=settings.malformed)


def _base(project: Project, online: bool = False, progress: Progress = SILENT) -> models.Base:
    return models.resolve(project.settings.base, root=project.root, online=online, progress=progress)


def _walk(
    project: Project,
    goal: Goal,
    stage: Callable[..., tuple[Artifact, ...]],
    pack: packs.Pack,
    origin: sources.SourceSet,
    *,
    engine: Engine,
    base: Callable[[], models.Base],
) -> tuple[Artifact, ...]:
    """The order of the stages. Returns dataset, run, adapter and evaluation, as far as the goal goes.

    `base` finds the base model once it is needed: it may have to be made first.
    """
    settings = project.settings
    (dataset,) = stage(prepare.build, origin, pack, settings.prepare, settings.languages, engine=engine)
    if goal == "dataset":
        return (dataset,)
    model = base()
    tuning, adapter = stage(training.train, dataset, model, settings.training)
    if goal == "adapter":
        return dataset, tuning, adapter
    files = evaluation.task_files_digest(settings.evaluation, project.root)
    (scores,) = stage(_evaluate, dataset, adapter, model, pack, settings.evaluation, settings.languages, tuning, files)
    return dataset, tuning, adapter, scores


def _evaluate(
    dataset: Artifact,
    adapter: Artifact,
    base: models.Base,
    pack: packs.Pack,
    settings: evaluation.EvaluationSettings,
    *rest: Any,
    workspace: Workspace,
) -> Artifact:
    """Open base model and adapter for the evaluation stage: one copy in memory serves as both sides.

    `rest` is the languages, the run, and the digest of task files, which only takes part in the stage's identity.
    """
    languages, tuning, _ = rest
    model = models.LocalModel.open(base, adapter.path)
    return evaluation.evaluate(dataset, adapter, model, pack, settings, languages, workspace=workspace, run=tuning)


class Stages:
    """Calls stages: finds what is unchanged, keeps their workspaces, records what they return."""

    def __init__(self, store: Store, recorder: Recorder = _ignore, progress: Progress = SILENT) -> None:
        self.store = store
        self.recorder = recorder
        self.progress = progress

    def __call__(self, function: Callable[..., Artifact | tuple[Artifact, ...]], *inputs: Any, **means: Any) -> tuple[Artifact, ...]:
        """Return the stage's artefacts, from the store if nothing that matters has changed.

        `inputs` take part in the stage's identity; `means` (such as the engine) only in how the work is done.
        """
        key = self.key(function, inputs)
        found = self.store.find(key)
        if found is None:
            found = self._work(function, inputs, means, key)
            self.store.remember(key, found)
        else:
            self.progress.say(f"{_name(function)}: unchanged, {found[-1].kind} {found[-1].digest[:12]} is used again")
        for artifact in found:
            self.recorder(artifact)
        return found

    def key(self, function: Callable[..., Any], inputs: Sequence[Any]) -> str:
        """Return the identity of a stage's work: its code, and the digest of every input."""
        return digest_of({"stage": _name(function), "code": _code(_name(function)), "inputs": [_identity(item) for item in inputs]})

    def _work(self, function: Callable[..., Any], inputs: Sequence[Any], means: dict[str, Any], key: str) -> tuple[Artifact, ...]:
        workspace = self.store.workspace(key, self.progress)
        try:
            returned = function(*inputs, workspace=workspace, **means)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(
                f"the disk that holds {self.store.root} is full; nothing half-written was kept\n    -> free some space and run the same command again"
            ) from error
        return returned if isinstance(returned, tuple) else (returned,)


def _name(function: Callable[..., Any]) -> str:
    """The stage's room: the first package below metier that its function lives in."""
    room = function.__module__.split(".")[1]
    return "evaluation" if room == "flow" else room


def _identity(value: Any) -> Any:
    if isinstance(value, Settings):
        return settings_digest(value)
    if hasattr(value, "digest"):
        return value.digest
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple | list):
        return [_identity(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no identity: stages take artefacts, settings and plain values")


_STAGES = frozenset({"prepare", "training", "evaluation"})
_ABOVE = frozenset({"cli", "flow.py", "project.py", "testing.py", "demo.py", "serving"})


@cache
def _code(stage: str) -> str:
    """Digest of the code that a stage's work depends on: its own room and everything below the stages."""
    root = Path(__file__).parent
    rooms = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    files = [path.relative_to(root) for path in rooms]
    used = sorted(path for path in files if path.parts[0] not in _ABOVE and (path.parts[0] not in _STAGES or path.parts[0] == stage))
    return digest_of({path.as_posix(): digest_file(root / path) for path in used})
