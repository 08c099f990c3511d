"""`metier release` and `metier releases`: what may be served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier import flow, registry
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean
from metier.cli.results import json_line
from metier.project import load_project

__all__ = ["release", "releases"]


def release(
    project: options.ProjectPath = Path(),
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name under which it is served.", show_default="the project's name")] = None,
    as_json: options.Json = False,
) -> None:
    """Sign the present expert so that it may be served. Refused unless it passed the gate and somebody else approved it."""
    loaded = load_project(project)
    with chain(loaded) as tied:
        made = flow.release(loaded, tied.keys, name=name, recorder=tied.keep, record=tied.record, ledger=tied.verified)
        # What is refused when it is loaded must not be given out either.
        registry.open_release(made.path, tied.keys.public_pem)
    if as_json:
        document = {"digest": made.digest, "path": str(made.path), **made.facts}
        typer.echo(json_line({"project": loaded.settings.project, "release": document}))
        return
    typer.echo(
        f"release    {made.digest[:12]}  {made.facts['name']}: adapter {made.facts['adapter'][:12]}, approved by {clean(', '.join(made.facts['approved_by']))}"
    )
    typer.echo(f"           {made.path}")


def releases(project: options.ProjectPath = Path(), *, as_json: options.Json = False) -> None:
    """List the project's releases, oldest first, each checked as it is before serving."""
    loaded = load_project(project)
    with chain(loaded) as tied:
        found = registry.releases(loaded.store, tied.keys.public_pem) if tied.keys.exist else []
    if as_json:
        rows = [{"digest": item.digest, "sound": opened is not None, "why": why or None, **item.facts} for item, opened, why in found]
        typer.echo(json_line({"project": loaded.settings.project, "releases": rows}))
        return
    for item, opened, why in found:
        if opened is None:
            typer.echo(f"{item.digest[:12]}  refused: {clean(why.splitlines()[0])}")
        else:
            approved = clean(", ".join(opened.statement["approved_by"]))
            typer.echo(f"{item.digest[:12]}  {opened.name:<24} adapter {opened.adapter_digest[:12]}  base {opened.base_digest[:12]}  approved by {approved}")
    if not found:
        typer.echo(f"nothing is released yet; metier comply {project} says what is missing")
