"""The project: a folder with `metier.yaml`, whose sections are each read by the room that owns them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticUndefined

from metier import training
from metier.artifacts import Artifact
from metier.audit import AuditSettings
from metier.compliance import ComplianceSettings
from metier.config import Document, Settings, load_yaml, parse
from metier.engines import EngineSettings
from metier.errors import ConfigError, Fault
from metier.evaluation import EvaluationSettings
from metier.models import Base
from metier.prepare import PrepareSettings
from metier.serving import ServingSettings
from metier.sources import SourceSettings
from metier.store import Store, write_atomically
from metier.training import SweepSettings, TrainingSettings, unlabelled_keys, unshared

__all__ = [
    "PROJECT_FILE",
    "Project",
    "ProjectSettings",
    "companions",
    "load_project",
    "members_of",
    "new_project",
    "new_project_text",
    "project_file",
    "read_project_file",
]

PROJECT_FILE = "metier.yaml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ProjectSettings(Settings):
    """The project file, section by section."""

    metier: Literal[1]
    """Version of the project file's form."""
    project: str = Field(pattern=f"^{_NAME.pattern}$")
    """Name of the project: letters, digits, dots, dashes and underscores."""
    pack: str
    """Domain pack; `metier packs list` shows what is installed."""
    languages: tuple[Literal["zh", "en"], ...] = Field(default=("zh", "en"), min_length=1)
    """Languages that the expert works in."""
    base: str = "bundled/gemma-3-270m"
    """Base model: `bundled/...`, a folder (relative to the project), or a hub id."""
    malformed: float = Field(default=0.01, ge=0, le=1)
    """Share of malformed rows of a source up to which the run goes on; each of them is kept in the drop ledger."""
    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    """Where the data comes from."""
    prepare: PrepareSettings = PrepareSettings()
    training: TrainingSettings = TrainingSettings()
    sweep: SweepSettings = SweepSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    compliance: ComplianceSettings = ComplianceSettings()
    serving: ServingSettings = ServingSettings()
    audit: AuditSettings = AuditSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse what the engine cannot do, and what has no meaning for the task, before anything is read or loaded."""
        said = unlabelled_keys(self.training) + (unshared(self.training) if self.engine.distribution == "sharded" else [])
        if said:
            raise ValueError("\n".join(said))
        return self


@dataclass(frozen=True, slots=True)
class Project:
    """A loaded project: its folder, its settings and its artefact store."""

    root: Path
    settings: ProjectSettings

    @property
    def store(self) -> Store:
        """The project's artefacts, in `.metier/` beside the project file."""
        return Store(self.root / ".metier")


def project_file(path: Path) -> Path:
    """Return the file of a project that is named by its folder or by its file, which may be called otherwise."""
    return path / PROJECT_FILE if path.is_dir() else path


def load_project(path: Path) -> Project:
    """Load a project by its folder or its file. Raises ConfigError with every fault of the file."""
    file = project_file(path)
    return Project(file.resolve().parent, parse(read_project_file(file), ProjectSettings))


def companions(project: Project) -> tuple[Project, ...]:
    """Return the other projects that one trains together with, as `training.adaptation.joint.projects` names them.

    Who they name in their turn does not matter. Raises ConfigError, naming both, for projects that cannot be trained together, and as
    `load_project` does.
    """
    own = project.settings
    others = tuple(load_project(project.root / place) for place in own.training.adaptation.joint.projects)
    key, faults = "training.adaptation.joint.projects", []
    for place, other in enumerate(others):
        if other.settings.project in {own.project, *(earlier.settings.project for earlier in others[:place])}:
            what = f"two of the projects are called {other.settings.project!r}"
            faults.append(Fault(what, other.root, key=key, remedy="name each project once, and not this one; give each a name of its own"))
        for name, (mine, theirs) in _apart(own.training, other.settings.training).items():
            what = f"{name} is {theirs} in the project {other.settings.project} and {mine} in {own.project}"
            faults.append(Fault(what, other.root, key=key, remedy="set both alike, so that they fit one training"))
    if faults:
        raise ConfigError(faults)
    return others


def members_of(project: Project, base: Callable[[Project], Base], dataset: Callable[[Project], Artifact]) -> tuple[training.Member, ...]:
    """Return the projects that one trains together with, each with its dataset; `base` and `dataset` find, or make, those of a project.

    Raises ConfigError for a project that does not fit, before any dataset is made.
    """
    others = companions(project)
    own = base(project) if others else None
    for other in others:
        if own is not None and (found := base(other)).digest != own.digest:
            what = f"the project {other.settings.project} trains {found.name}, and {project.settings.project} another base model, {own.name}"
            raise ConfigError(Fault(what, other.root, key="training.adaptation.joint.projects", remedy="give both the same base model"))
    return tuple(training.Member(other.settings.project, dataset(other), other.store) for other in others)


def _apart(own: TrainingSettings, other: TrainingSettings) -> dict[str, tuple[Any, Any]]:
    """Return what has to be alike of two projects that train together and is not, by key."""

    def said(training: TrainingSettings) -> dict[str, Any]:
        sizes = training.adaptation.model_dump(mode="json", exclude={"joint"})
        found = {"task": training.task, "method": training.taught_by, "batch.maximum_tokens": training.batch.maximum_tokens}
        return {f"training.{name}": value for name, value in (found | {f"adaptation.{name}": value for name, value in sizes.items()}).items()}

    mine, theirs = said(own), said(other)
    return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def read_project_file(file: Path) -> Document:
    """Return a project file with what it extends below it. Raises ConfigError for files without settings and files that extend each other in a circle."""
    seen: list[Path] = []
    layers: list[Document] = []
    following: Path | None = file
    while following is not None:
        document = load_yaml(following)
        seen.append(following.resolve())
        if not isinstance(document.value, dict) or not document.value:
            raise ConfigError(Fault("the file holds no settings", following, remedy="write a commented one with: metier init"))
        layers.append(document)
        following = _extended(document)
        if following is not None and following.resolve() in seen:
            raise ConfigError(document.fault(("extends",), f"{following.name} extends this file in its turn", "take one of the two out"))
    merged = layers.pop()
    for document in reversed(layers):
        merged = document.over(merged)
    merged.value.pop("extends", None)
    return merged


def _extended(document: Document) -> Path | None:
    """Return the file that a project file extends, which has to stand beside it."""
    name = document.value.get("extends")
    if name is None:
        return None
    if not isinstance(name, str) or Path(name).name != name:
        raise ConfigError(document.fault(("extends",), "this has to be the name of a file in the same folder", "write for instance: extends: metier.yaml"))
    return document.path.with_name(name)


def new_project(folder: Path, *, name: str, pack: str) -> list[Path]:
    """Write a commented project file and an empty `data/` into a folder and return both paths.

    Raises ConfigError for a name that projects cannot have and for a project file that is there already.
    """
    file, data = folder / PROJECT_FILE, folder / "data"
    if not _NAME.fullmatch(name):
        raise ConfigError(Fault(f"{name!r} cannot be the name of a project", key="project", remedy="use letters, digits, . - and _: --name NAME"))
    if file.exists():
        raise ConfigError(Fault("there is a project file already", file, remedy="edit it, or choose another folder"))
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(Fault(f"cannot be made: {error.strerror or error}", data, remedy="choose another folder")) from None
    write_atomically(file, new_project_text(name, pack).encode())
    return [file, data]


def new_project_text(name: str, pack: str) -> str:
    """Return the text of a new project file: the required keys filled in, every other key commented out with its default."""
    lines = [
        "# A Metier project. Keys that are commented out show their defaults.",
        "metier: 1",
        f"project: {name}",
        f"pack: {pack}",
        "sources:",
        "  - path: data/*.jsonl",
        "    licence: internal        # terms under which the data may be used",
        "    basis: ''                # consent, contract or approval that allows it",
    ]
    lines += _commented(SourceSettings, indent="    ", skip={"path", "licence", "basis"})
    lines += _commented(ProjectSettings, indent="", skip={"metier", "project", "pack", "sources"})
    return "\n".join(lines) + "\n"


def _commented(settings: type[Settings], *, indent: str, skip: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    for name, field in settings.model_fields.items():
        if name in skip or field.default is PydanticUndefined:
            continue
        for line in (field.description or "").splitlines():
            yield f"{indent}# {line.strip()}"
        if isinstance(field.default, Settings):
            yield f"{indent}# {name}:"
            yield from (f"{indent}#   {line.removeprefix(indent)[2:]}" for line in _commented(type(field.default), indent=indent))
        else:
            yield f"{indent}# {name}: {_yaml(field.default)}"


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return "''" if value == "" else str(value)
