"""`metier attention`: what the base model and the expert look at in chosen records, as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier import evaluation, flow
from metier.cli import options
from metier.cli.results import json_line
from metier.cli.run import latest
from metier.errors import Fault, InputError
from metier.project import load_project
from metier.store import write_atomically

__all__ = ["attention"]


def attention(
    records: Annotated[list[str], typer.Argument(metavar="RECORD...", help="Ids of conversations of the dataset, or their first characters.")],
    project: Annotated[Path, typer.Option("--project", metavar="PROJECT", help="Project folder, or its metier.yaml.", show_default="this folder")] = Path(),
    *,
    layer: Annotated[list[int] | None, typer.Option("--layer", metavar="N", help="Layer to show, from 0; may be given again.", show_default="three")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Page to write; nothing is written over.")] = Path("attention.html"),
    as_json: options.Json = False,
) -> None:
    """Show where the base model and the expert read in chosen records. The page holds the records' text."""
    if out.exists():
        raise InputError(Fault("there is such a file already", out, remedy="choose another name: --out FILE"))
    loaded = load_project(project)
    found = evaluation.records_named(latest(loaded, "dataset"), records)
    model = flow.open_expert(loaded, latest(loaded, "adapter"))
    looked = [evaluation.attention_of(model, record, layer) for record in found]
    write_atomically(out, evaluation.attention_page(loaded.settings.project, looked).encode())
    if as_json:
        typer.echo(json_line({"project": loaded.settings.project, "records": [one.record for one in looked], "path": str(out)}))
    else:
        typer.echo(f"{out}: {len(looked)} records")
