"""`metier init`: a new project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier import packs
from metier.errors import Fault, PackError, nearest
from metier.project import new_project

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder of the new project.", show_default="this folder")] = Path(),
    *,
    pack: Annotated[str, typer.Option("--pack", metavar="NAME", help="Domain pack (see: metier packs list).")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the project.", show_default="the folder's name")] = None,
) -> None:
    """Write a commented metier.yaml and an empty data folder."""
    known = sorted({item.name for item in packs.available()})
    if pack not in known:
        raise PackError(Fault(f"no pack named {pack!r} is installed", key="--pack", remedy=nearest(pack, known)))
    file, data = new_project(folder, name=name or folder.resolve().name, pack=pack)
    typer.echo(f"wrote {file}\nput data into {data}, then: metier run {folder}")
