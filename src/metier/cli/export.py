"""`metier export`: an expert for other runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from metier import deploy
from metier import export as way_out
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, errors, reporting
from metier.cli.results import json_line
from metier.errors import InputError
from metier.project import load_project

__all__ = ["export"]


def export(
    project: options.ProjectPath = Path(),
    *,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="merged (transformers folder), gguf (llama.cpp), vllm or peft (adapter folders).")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New folder to write; nothing is written over.")],
    adapter: Annotated[str | None, typer.Option("--adapter", metavar="DIGEST", help="Beginning of the adapter's digest; else the present one.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Numbers of a GGUF file: f32, f16, bf16 or q8_0.", show_default="the base's own")
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="JSON Lines to compare on; else questions of the validation split.")] = None,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="RUNTIME", help="llama.cpp: fail unless a GGUF file can be run there.", show_default="run there if installed"),
    ] = None,
    unreleased: Annotated[bool, typer.Option("--unreleased", help="Export although no decision lets it be released; the card says so.")] = False,
    as_json: options.Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check what can be checked beforehand; write nothing.")] = False,
    online: options.Online = False,
) -> None:
    """Write the expert for another runtime, compare it with the original, and put the export on record."""
    if check not in (None, "llama.cpp"):
        raise InputError(f"--check: {check!r} is no runtime that an export is run in\n    -> valid: llama.cpp")
    loaded = load_project(project)
    asked = None if prompts is None else deploy.read_prompts(prompts)
    wish = deploy.Wish(cast("deploy.Format", form), kind, asked, unreleased, runtime=check is not None)
    with chain(loaded) as tied:
        if dry_run:
            subject = way_out.check(loaded, wish, out, adapter=adapter, ledger=tied.verified, online=online)
            document = {"project": loaded.settings.project, "would": {"format": form, "out": str(out), **subject.as_facts()}}
            typer.echo(json_line(document) if as_json else f"would export adapter {subject.adapter.digest[:12]} as {form} to {out}")
            return
        with reporting() as progress:
            done = way_out.export(loaded, wish, out, adapter=adapter, record=tied.record, ledger=tied.verified, progress=progress, online=online)
    if as_json:
        typer.echo(json_line({"project": loaded.settings.project, "export": {"path": str(done.folder), **done.manifest}}))
        return
    if not done.manifest["released"]:
        errors().print("note: nobody has released this expert; its card says so")
    typer.echo(f"export     {done.digest[:12]}  {form} of adapter {done.manifest['adapter'][:12]}")
    for line in _measured(done.manifest["measured"]):
        typer.echo(f"           {line}")
    typer.echo(clean(f"           {done.folder}"))


def _measured(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured, a line for each thing that was compared; nothing where bytes were handed on."""
    for figures in [found] if "largest" in found else found.values():
        if isinstance(figures, Mapping):
            over = f"{figures['places']} places" if "places" in figures else f"{figures['records']} records"
            shown = {"divergence": ".2g", "largest": ".2g", "same": ".1%"}
            yield f"{over}: " + ", ".join(f"{name} {figures[name]:{form}}" for name, form in shown.items() if name in figures)
