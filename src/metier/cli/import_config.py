"""`metier import-config`: a settings file of LLaMA-Factory, Axolotl or Soup as a project file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from metier import packs
from metier.cli import options
from metier.cli.console import clean, output
from metier.cli.results import json_line
from metier.errors import Fault, PackError, nearest
from metier.imports.convert import Imported, convert
from metier.imports.tools import TOOLS
from metier.imports.write import write_project

__all__ = ["import_config"]


def import_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of the other tool.")],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Project file to write; nothing is written over.")] = Path("metier.yaml"),
    tool: Annotated[str | None, typer.Option("--from", metavar="TOOL", help=f"{', '.join(TOOLS)}; else its keys tell.")] = None,
    pack: Annotated[str | None, typer.Option("--pack", metavar="NAME", help="Domain pack (see: metier packs list).")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the project.", show_default="the file's name")] = None,
    as_json: options.Json = False,
) -> None:
    """Write a commented project file from another tool's settings, and say of every key what became of it."""
    known = sorted({item.name for item in packs.available()})
    if pack is not None and pack not in known:
        raise PackError(Fault(f"no pack named {pack!r} is installed", key="--pack", remedy=nearest(pack, known)))
    imported = convert(file, out.absolute().parent, tool=tool)
    called = name or re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._") or "imported"
    write_project(imported, out, name=called, pack=pack)
    if as_json:
        rows = [{"key": item.key, "state": item.state, "line": item.line, "to": item.to, "note": item.note} for item in imported.findings]
        typer.echo(json_line({"tool": imported.tool.name, "path": str(out), "project": called, "pack": pack, "sources": len(imported.sources), "keys": rows}))
        return
    _show(imported, out, pack, known)


def _show(imported: Imported, out: Path, pack: str | None, known: list[str]) -> None:
    console = output()
    console.print(clean(f"{imported.path}: a file of {imported.tool.title}"))
    for title, states in (
        ("taken over", ("taken",)),
        ("done anyway", ("same",)),
        ("not taken over", ("not taken",)),
        ("unknown keys", ("unknown",)),
        ("without a value", ("empty",)),
    ):
        if found := imported.of(*states):  # type: ignore[arg-type]
            console.print(f"\n{title}")
            console.print("\n".join(clean(f"  {item}") for item in found))
    left = len(imported.of("not taken", "unknown"))
    console.print(clean(f"\nwrote      {out}; {left} keys were not taken over, and the file says why at its end"))
    if pack is None:
        console.print(f"next       choose a pack in it ({', '.join(known)}), state licences, then: metier run {clean(str(out.parent))}")
