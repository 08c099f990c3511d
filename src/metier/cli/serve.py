"""`metier serve` and `metier keys`: released experts over HTTP, and who may ask them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier import models, packs, registry, serving
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, errors
from metier.cli.results import json_line
from metier.errors import Fault, GateRefused, InputError, MetierError, MissingExtra, nearest
from metier.events import Record
from metier.project import Project, load_project
from metier.serving import ApiKeys, Served, ServingSettings

if TYPE_CHECKING:
    from metier.serving.door import Door

__all__ = ["application", "connect", "keys", "serve"]

keys = typer.Typer(no_args_is_help=True, help="API keys: who may ask the server.")

_Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the key, as the log will show it.")]


@contextmanager
def connect(project: Project) -> Iterator[tuple[list[Served], Record]]:
    """Give a project's sound releases, the newest of each name, and what keeps the events of its answers.

    A release that was changed since it was signed is named and left out. Raises GateRefused if the log does not verify,
    MetierError if there is nothing that may be served.
    """
    with chain(project) as tied:
        found = registry.releases(project.store, tied.keys.public_pem) if tied.keys.exist else []
        for _, opened, why in found:
            if opened is None:
                errors().print(clean(why))
        sound = registry.newest(found)
        if not sound:
            raise MetierError(f"{project.settings.project} has no release that may be served\n    -> make one with: metier release {project.root}")
        state = tied.verified()
        if not state.intact:
            raise GateRefused(f"not served: the log of events does not verify: {state.fault}\n    -> metier audit verify says more")
        yield [_served(item) for item in sound.values()], tied.record


def _served(release: registry.Release) -> Served:
    files = {name: str(facts["sha256"]) for name, facts in release.statement["files"].items()}
    return Served(release.name, release.path, release.adapter_digest, release.digest, release.base_digest, files)


def serve(
    project: options.ProjectPath = Path(),
    *,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.", show_default="the project's")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on.", show_default="the project's")] = None,
    release: Annotated[list[str] | None, typer.Option("--release", metavar="NAME", help="Serve this release only; may be given again.")] = None,
) -> None:
    """Answer questions or label texts over HTTP with the project's released experts, each answer on record."""
    loaded = load_project(project)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = loaded.settings.serving.model_copy(update=given)
    with connect(loaded) as (found, record):
        chosen = _choose(found, release or [])
        api_keys = _keys(loaded)
        if not api_keys.list():
            errors().print(f"note: there is no key yet, so nobody can ask; make one with: metier keys new {project} --name NAME")
        app = application(loaded, chosen, api_keys, record, settings)
        names = ", ".join(item.name for item in chosen)
        errors().print(f"serving {names} at http://{settings.host}:{settings.port}; Ctrl-C ends it")
        serving.serve(app, settings)


def application(project: Project, releases: Sequence[Served], api_keys: ApiKeys, record: Record, settings: ServingSettings) -> Door:
    """Return the server of a project's releases, its models loaded. Raises ModelError if a release does not fit the base model."""
    base = models.resolve(project.settings.base, root=project.root)
    try:
        workers = serving.open_workers(base, releases, settings)
        service = serving.Service(workers, serving.Guard(packs.load(project.settings.pack)), api_keys, record, settings)
        return serving.build_app(service)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastapi", "serve", "serving") from None


def _choose(found: Sequence[Served], wanted: Sequence[str]) -> list[Served]:
    known = {item.name: item for item in found}
    faults = [Fault(f"there is no release {name!r}", key="--release", remedy=nearest(name, list(known))) for name in wanted if name not in known]
    if faults:
        raise InputError(faults)
    return [known[name] for name in dict.fromkeys(wanted)] or list(found)


def _keys(project: Project) -> ApiKeys:
    return ApiKeys(project.store.root / "keys")


@keys.command("new")
def new(
    project: options.ProjectPath = Path(),
    *,
    name: _Name,
    scope: Annotated[list[str] | None, typer.Option("--scope", metavar="SCOPE", help="chat or metrics; may be given again.", show_default="chat")] = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="WHEN", help="90d, 12h or a time such as 2030-01-31.", show_default="never")] = None,
) -> None:
    """Make a key and print it. It cannot be shown again: only a digest is kept."""
    typer.echo(_keys(load_project(project)).new(name, scopes=scope or ["chat"], expires=expires))
    errors().print("this is the only time that the key is shown")


@keys.command("list")
def show(project: options.ProjectPath = Path(), *, as_json: options.Json = False) -> None:
    """List the keys: names, scopes and times, never the keys themselves."""
    found = _keys(load_project(project)).list()
    if as_json:
        rows = [{"name": key.name, "scopes": key.scopes, "created": key.created, "expires": key.expires, "revoked": key.revoked} for key in found]
        typer.echo(json_line(rows))
        return
    for key in found:
        state = f"revoked {key.revoked}" if key.revoked else f"expires {key.expires}" if key.expires else "no end"
        typer.echo(f"{key.name:<24}{','.join(key.scopes):<16}made {key.created}  {state}")
    if not found:
        errors().print("there is no key yet; make one with: metier keys new --name NAME")


@keys.command("revoke")
def revoke(project: options.ProjectPath = Path(), *, name: _Name) -> None:
    """Make a key worthless at once, for a running server, too."""
    key = _keys(load_project(project)).revoke(name)
    typer.echo(f"{key.name} revoked {key.revoked}")
