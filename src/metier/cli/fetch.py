"""`metier data fetch`: a copy of a published corpus, by the pack that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from metier import packs
from metier.cli import options
from metier.cli.console import clean, reporting
from metier.cli.results import json_line
from metier.errors import Fault, InputError
from metier.packs import Pack, fetching
from metier.packs.fetching import Fetched, Request
from metier.project import PROJECT_FILE, load_project, project_file

__all__ = ["fetch"]

_SHOWN = 10


def fetch(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Corpus to fetch; without it: what the pack fetches, and what it is told.")] = None,
    *,
    pack: Annotated[str | None, typer.Option("--pack", metavar="NAME", help="Pack that knows the corpus.", show_default="the project's")] = None,
    given: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the corpus; may be given again.")] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Folder inside the project.", show_default="data/NAME")] = None,
    project: Annotated[Path, typer.Option("--project", metavar="PROJECT", help="Project folder, or its file.", show_default="this folder")] = Path(),
    online: Annotated[bool, typer.Option("--online", help="Allow the machines that publish it to be asked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked of whom; ask nobody, write nothing.")] = False,
    as_json: options.Json = False,
) -> None:
    """Fetch a published corpus into the project, and say how the project file reads it."""
    loaded = packs.load(pack or _pack_of(project))
    if name is None:
        _list(loaded, as_json=as_json)
        return
    root = project.parent if project.is_file() else project
    asked = fetching.request_of(loaded, name, fetching.assignments(given or ()), to or Path("data") / name, root=root, online=online or dry_run)
    if dry_run:
        _plan(asked, as_json=as_json)
        return
    with reporting() as progress:
        _show(asked, fetching.fetch(asked, progress=progress), root, as_json=as_json)


def _pack_of(project: Path) -> str:
    if not project_file(project).is_file():
        installed = ", ".join(item.name for item in packs.available())
        raise InputError(Fault(f"no pack is named, and there is no {PROJECT_FILE} that names one", project, key="pack", remedy=f"--pack NAME: {installed}"))
    return load_project(project).settings.pack


def _list(pack: Pack, *, as_json: bool) -> None:
    corpora = fetching.fetchable(pack)
    if as_json:
        typer.echo(json_line([{"corpus": corpus.name, **corpus.fetch.model_dump(mode="json")} for corpus in corpora if corpus.fetch]))
        return
    for corpus in corpora:
        typer.echo(f"{corpus.name}  {corpus.about.title}; {corpus.about.licence}; {corpus.about.url}")
        for parameter in corpus.fetch.parameters if corpus.fetch else ():
            need = "required" if parameter.required else f"default {parameter.default}" if parameter.default is not None else "optional"
            typer.echo(f"  --set {parameter.name}=  {parameter.about} ({need})")
    if not corpora:
        typer.echo(f"the pack {pack.facts.name!r} fetches no corpus")


def _plan(asked: Request, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line({"corpus": asked.corpus.name, "hosts": asked.plan.hosts, "values": dict(asked.values), "folder": asked.path}))
        return
    typer.echo(f"would ask {' and '.join(asked.plan.hosts)} for {asked.corpus.name}, into {asked.path}, with")
    for key, value in asked.values.items():
        if value is not None:
            typer.echo(f"  {key}: {clean(', '.join(value) if isinstance(value, tuple) else str(value))}")


def _show(asked: Request, found: Fetched, project: Path, *, as_json: bool) -> None:
    root, about = project.resolve(), asked.corpus.about
    names = [path.relative_to(root).as_posix() for path in found.files]
    source = {"path": asked.path, "corpus": asked.corpus.name}
    if as_json:
        facts = {"corpus": asked.corpus.name, "folder": asked.path, "files": names, "new": found.new}
        typer.echo(json_line({**facts, "licence": about.licence, "citation": about.citation, "source": source}))
        return
    there = f"; {len(names) - found.new} of them had been there" if len(names) > found.new else ""
    typer.echo(f"{about.title}: {len(names)} files in {asked.path}{there}")
    for name in names[:_SHOWN]:
        typer.echo(f"  {clean(name)}")
    if len(names) > _SHOWN:
        typer.echo(f"  and {len(names) - _SHOWN} more")
    lines = yaml.safe_dump([source], allow_unicode=True, sort_keys=False).splitlines()
    typer.echo(f"terms: {about.licence}; cite: {about.citation}\n\nread them with these lines under `sources:` in {PROJECT_FILE}:\n")
    for line in lines:
        typer.echo(f"  {line}")
