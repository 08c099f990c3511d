"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["DryRun", "Json", "Online", "Processes", "ProjectPath", "Seed"]

ProjectPath: TypeAlias = Annotated[Path, typer.Argument(metavar="[PROJECT]", help="Project folder, or its metier.yaml.", show_default="this folder")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line of stdout; all else goes to stderr.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Say which stages would run and which are unchanged; write nothing.")]
Online: TypeAlias = Annotated[bool, typer.Option("--online", help="Allow a base model to be downloaded from the hub.")]
Processes: TypeAlias = Annotated[int | None, typer.Option("--processes", min=1, metavar="N", help="Processes that prepare data; else engine.processes.")]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", metavar="N", help="Another seed gives another choice; the same seed the same.")]
