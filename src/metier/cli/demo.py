"""`metier demo`: the whole main path on a project that an installed package writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier import demo as demos
from metier.cli import options
from metier.cli.console import errors, output
from metier.cli.results import document, json_line, show
from metier.cli.run import walk

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder of the demo project.")] = Path("demo"),
    *,
    seed: options.Seed = 0,
    scale: Annotated[float, typer.Option("--scale", min=0.001, help="How much data: 1 is the full demo.")] = 1.0,
    name: Annotated[str | None, typer.Option("--demo", metavar="NAME", help="Which demo, where several are installed.")] = None,
    as_json: options.Json = False,
    processes: options.Processes = 1,
) -> None:
    """Write a complete project and run it: data, training, evaluation, report. Start it again and it goes on where it was."""
    project = demos.prepare(folder, name=name, seed=seed, scale=scale)
    errors().print(f"the project is in {folder}: {project.settings.project}; stop it whenever you like, the same command goes on")
    outcome = walk(project, "evaluation", processes=processes)
    if as_json:
        typer.echo(json_line(document(outcome)))
    else:
        show(output(), outcome, folder)
