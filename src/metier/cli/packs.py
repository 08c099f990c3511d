"""`metier packs`: what is installed, whether a pack conforms, a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier import packs
from metier.cli import options
from metier.cli.console import clean
from metier.cli.results import json_line
from metier.errors import PackError
from metier.packs import conformance, scaffold
from metier.packs.fetching import fetchable

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Domain packs.")


@app.command("list")
def show(as_json: options.Json = False) -> None:
    """List the installed packs. None of them is loaded."""
    found = packs.available()
    if as_json:
        typer.echo(json_line([{"name": item.name, "target": item.target, "distribution": item.distribution, "version": item.version} for item in found]))
        return
    for item in found:
        typer.echo(f"{item.name:<16}{item.target}  ({item.distribution} {item.version})")
    if not found:
        typer.echo("no pack is installed; write one with: metier packs new FOLDER")


@app.command()
def check(pack: Annotated[str, typer.Argument(metavar="NAME-OR-FOLDER", help="Installed pack, or the folder of one.")]) -> None:
    """Run every example of a pack beside its rule. Checking a folder runs its pack.py."""
    loaded = packs.load_path(Path(pack)) if Path(pack).is_dir() else packs.load(pack)
    if faults := conformance.check(loaded):
        raise PackError(faults)
    kinds = ("identifiers", "lexicon", "templates", "quality", "tasks", "controls", "guard", "phrases")
    counts = ", ".join(f"{len(getattr(loaded, kind))} {kind}" for kind in kinds)
    typer.echo(f"{loaded.facts.name} {loaded.facts.version} conforms: {counts}")
    for language, title in loaded.facts.title.items():
        typer.echo(f"  {language}: {clean(title)}")
    if loaded.lexicons:
        typer.echo(f"  lexicons on demand: {', '.join(sorted(loaded.lexicons))}")
    if corpora := fetchable(loaded):
        typer.echo(f"  fetched on demand: {', '.join(corpus.name for corpus in corpora)}")


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write; its name is the pack's unless --name says otherwise.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the pack.", show_default="the folder's name")] = None,
) -> None:
    """Write a small installable pack that conforms, to be filled."""
    name = name or folder.resolve().name
    for path in scaffold.write(folder, name):
        typer.echo(f"wrote {path}")
    typer.echo(f"install it with: pip install -e {folder}\ncheck it with:   metier packs check {folder}")
