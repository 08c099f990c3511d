"""`metier sweep`: a search over training settings, gone on with where it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from metier import flow, models, packs
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, output, reporting, span
from metier.cli.results import json_line
from metier.cli.run import walk
from metier.config import Document
from metier.engines import Ray, engine_of
from metier.project import Project, load_project, project_file, read_project_file
from metier.stages import Stages
from metier.training import SweepSettings
from metier.training import sweep as sweeping

__all__ = ["sweep"]


def sweep(
    project: options.ProjectPath = Path(),
    *,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, metavar="N", help="Trainings at most; else sweep.trials. More of them go on from those done.")
    ] = None,
    parallel: Annotated[int | None, typer.Option("--parallel", min=1, metavar="N", help="Trials at a time; else sweep.parallel.")] = None,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Train every trial to its end, whatever sweep.prune says.")] = False,
    as_json: options.Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be tried; train nothing, write nothing.")] = False,
    online: options.Online = False,
) -> None:
    """Search the settings that the project file names under `sweep:` for the lowest validation loss or the best score, and say which to take."""
    loaded = load_project(project)
    document = read_project_file(project_file(project))
    wanted = _wanted(loaded.settings.sweep, trials, parallel, no_prune)
    scoring = flow.chosen_by(loaded, packs.load(loaded.settings.pack))
    space = sweeping.read_space(loaded.settings.training, wanted, document, scoring)
    if dry_run:
        _show_plan(loaded, wanted, space, as_json=as_json)
        return
    found = _search(loaded, wanted, space, document, scoring, online=online)
    if as_json:
        typer.echo(json_line({"project": loaded.settings.project, **found}))
    else:
        _show(output(), found)


def _wanted(settings: SweepSettings, trials: int | None, parallel: int | None, no_prune: bool) -> SweepSettings:
    given = {"trials": trials, "parallel": parallel, "prune": "none" if no_prune else None}
    return settings.model_copy(update={key: value for key, value in given.items() if value is not None})


def _search(project: Project, wanted: SweepSettings, space: sweeping.Space, document: Document, scoring: Any, *, online: bool) -> dict[str, Any]:
    """Build the dataset if it has changed, check what is searched against the base model, and search."""
    settings = project.settings
    named = settings.training.teacher
    with reporting() as progress:
        base = models.resolve(settings.base, root=project.root, online=online, progress=progress)
        teacher = models.resolve(named, root=project.root, online=online, progress=progress) if named else None
    sweeping.check_fit(space, base, document)
    dataset = walk(project, "dataset", online=online).dataset
    engine = engine_of(settings.engine, processes=max(settings.engine.processes, wanted.parallel))
    grid = sweeping.is_grid(space, wanted)
    with project.store.lock(), chain(project) as tied, reporting() as progress:
        key = Stages(project.store).key(sweeping.search, (dataset, base, settings.training, teacher, wanted.identity, grid, scoring))
        folder = project.store.root / "sweep" / key[:16]
        count = wanted.parallel
        workers = sweeping.ray_workers(engine, count) if isinstance(engine, Ray) else sweeping.local_workers(progress, count)
        diary = sweeping.Diary(key, flow.author(project), lambda event: tied.once(event, *sweeping.SAME))
        about: dict[str, Any] = {"diary": diary, "folder": folder, "project": settings.project, "teacher": teacher, "scoring": scoring}
        return sweeping.search(dataset, base, space, wanted, workers=workers, progress=progress, **about)


def _show_plan(project: Project, wanted: SweepSettings, space: sweeping.Space, *, as_json: bool) -> None:
    count = sweeping.planned_trials(space, wanted)
    way = "every combination once" if sweeping.is_grid(space, wanted) else "drawn one after the other, by the results before"
    searched = {key: value if isinstance(value, tuple) else value.model_dump() for key, value in wanted.search.items()}
    if as_json:
        facts = {"compared": asdict(space.by), "trials": count, "combinations": space.combinations, "grid": sweeping.is_grid(space, wanted), "search": searched}
        typer.echo(json_line({"project": project.settings.project, **facts, "prune": wanted.prune, "parallel": wanted.parallel}))
        return
    console = output()
    console.print(f"would train {count} trials, {way}; {wanted.parallel} at a time, prune: {wanted.prune}")
    console.print(f"  compared by: {clean(space.by.name)}, {'more' if space.by.higher_is_better else 'less'} is better")
    for key, value in wanted.search.items():
        values = ", ".join(map(sweeping.short, value)) if isinstance(value, tuple) else f"{value.low:g} to {value.high:g}{' (log)' if value.log else ''}"
        console.print(f"  {key}: {clean(values)}")


def _show(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the trials, the curve and what to take."""
    rows = facts["trials"]
    chosen = None if facts["recommended"] is None else facts["recommended"]["number"]
    by = facts["compared"]
    unit, counted = f" in {by['unit']}" if by["unit"] else "", "examples" if by["kind"] == "loss" else "items"
    title = f"trials, {clean(by['name'])}{unit} over {facts['examples']} {counted}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for key in rows[0]["settings"]:
        table.add_column(key, justify="right")
    measured = {"value": by["kind"]} | ({} if by["kind"] == "loss" else {"loss": "loss"})
    for name in (*measured.values(), "trained", "time"):
        table.add_column(name, justify="right")
    table.add_column("ending")
    for row in rows:
        cells = [str(row["number"]), *(clean(sweeping.short(value)) for value in row["settings"].values()), *(_number(row[key], ".4f") for key in measured)]
        cells += [_number(row["trainable_parameters"], ",.0f"), "-" if row["seconds"] is None else span(row["seconds"])]
        ending = row["state"] + (f": {row['reason']}" if row["reason"] else "")
        table.add_row(*cells, clean(ending), style="bold green" if row["number"] == chosen else None)
    console.print(table)
    if facts["curve"]:
        console.print()
        _show_curve(console, facts)
    if facts["importance"]:
        shares = ", ".join(f"{key} {share:.2f}" for key, share in facts["importance"].items())
        console.print(f"\nwhat mattered, as shares of the variance: {shares}", soft_wrap=True)
    console.print()
    console.print(clean(sweeping.headline(facts)), style="bold", soft_wrap=True)
    for line in facts["sentences"]:
        console.print(f"  {clean(line)}", soft_wrap=True)
    if facts["yaml"]:
        console.print("\nfor the project file:\n")
        console.print(clean(facts["yaml"]), soft_wrap=True)
    console.print(f"report     {facts['report']}", soft_wrap=True)


def _show_curve(console: Console, facts: Mapping[str, Any]) -> None:
    size, kind = facts["size"].rsplit(".", 1)[-1], facts["compared"]["kind"]
    table = Table(title=f"{kind} by {size}, the best complete trial of each", title_justify="left", box=None, pad_edge=False)
    for name in (size, "trials", "best trial", kind, "standard error", "worse than the best by", "its standard error"):
        table.add_column(name, justify="right")
    table.add_column("within one")
    for item in facts["curve"]:
        cells = [f"{item['size']:g}", str(item["trials"]), str(item["trial"]), f"{item['value']:.4f}", _number(item["standard_error"], ".4f")]
        cells += [f"{item['difference']:.4f}", _number(item["difference_error"], ".4f")]
        table.add_row(*cells, "yes" if item["within"] else "no")
    console.print(table)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
