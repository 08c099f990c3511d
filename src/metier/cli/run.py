"""`metier run`, `train` and `evaluate`: the main path, as far as the command goes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from metier import flow, sources, training
from metier.artifacts import Artifact
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, errors, output, reporting
from metier.cli.results import document, json_line, show
from metier.engines import engine_of
from metier.flow import Goal, Outcome
from metier.project import Project, load_project

__all__ = ["evaluate", "latest", "perform", "run", "train", "walk"]


def walk(project: Project, goal: Goal, *, online: bool = False, processes: int | None = None) -> Outcome:
    """Run the main path up to a goal with progress on stderr."""
    engine = engine_of(project.settings.engine, processes=processes)
    with reporting() as progress, chain(project) as tied:
        return flow.run(project, goal=goal, recorder=tied.keep, engine=engine, progress=progress, online=online, ledger=tied.verified)


def perform(path: Path, goal: Goal, *, as_json: bool, dry_run: bool, online: bool, processes: int | None) -> None:
    """Run the main path of a project up to a goal and print what it made, or only what it would do.

    Of several processes that a launcher has started, the first does this and the others take part in training.
    """
    project = load_project(path)
    if dry_run:
        _plan(project, goal, as_json=as_json)
        return
    if training.following():
        training.follow(project.store)
        return
    if goal == "dataset":
        for finding in sources.check_register(project.settings.sources):
            errors().print(clean(f"note: {finding.key}: {finding.what}"))
    try:
        outcome = walk(project, goal, online=online, processes=processes)
    finally:
        if training.processes() > 1:
            training.dismiss()
    if as_json:
        with chain(project) as tied:
            typer.echo(json_line(document(outcome, tied.verified())))
    else:
        show(output(), outcome, path)
    if outcome.decision is not None and outcome.decision.facts["verdict"] == "fail":
        raise typer.Exit(1)


def _plan(project: Project, goal: Goal, *, as_json: bool) -> None:
    with chain(project) as tied:
        stages = flow.planned(project, goal=goal, ledger=tied.verified)
    if as_json:
        states = {name: "would run" if found is None else "unchanged" for name, found in stages.items()}
        typer.echo(json_line({"project": project.settings.project, "stages": states}))
        return
    for name, found in stages.items():
        state = "would run" if found is None else "unchanged, " + ", ".join(f"{item.kind} {item.digest[:12]}" for item in found)
        typer.echo(f"{name:<11}{state}")


def latest(project: Project, kind: Literal["dataset", "adapter"]) -> Artifact:
    """Return the project's present dataset or adapter, or its newest one with a note on stderr that something has changed since."""
    artifact, present = flow.newest(project, kind)
    if not present:
        errors().print(f"note: data, settings or code have changed since this {kind} ({artifact.digest[:12]}) was made; metier run makes it anew")
    return artifact


def run(
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    online: options.Online = False,
    processes: options.Processes = None,
) -> None:
    """Walk the main path: prepare the data, train, evaluate, decide. What is unchanged is not done again."""
    perform(project, "decision", as_json=as_json, dry_run=dry_run, online=online, processes=processes)


def train(
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    online: options.Online = False,
    processes: options.Processes = None,
) -> None:
    """Walk the main path up to the trained adapter."""
    perform(project, "adapter", as_json=as_json, dry_run=dry_run, online=online, processes=processes)


def evaluate(
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    online: options.Online = False,
    processes: options.Processes = None,
) -> None:
    """Compare the expert with its base model on the same items, doing before it whatever has changed."""
    perform(project, "evaluation", as_json=as_json, dry_run=dry_run, online=online, processes=processes)
