"""`metier comply` and `metier approve`: what is decided and why, and a second person's word on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metier import compliance, flow
from metier.artifacts import Artifact
from metier.audit import check_target, write_bundle
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, errors, output
from metier.cli.results import decision_document, json_line, number
from metier.cli.run import walk
from metier.project import Project, load_project
from metier.registry import refusal

__all__ = ["approve", "comply"]

_COLOURS = {"pass": "green", "fail": "red", "awaiting attestation": "yellow"}


def comply(
    project: options.ProjectPath = Path(),
    *,
    bundle: Annotated[Path | None, typer.Option("--bundle", metavar="FOLDER", help="Write everything behind the decision to one signed folder.")] = None,
    with_items: Annotated[bool, typer.Option("--with-items", help="Put the evaluation's questions and answers into it, not only hashes.")] = False,
    as_json: options.Json = False,
    online: options.Online = False,
) -> None:
    """Decide the project's controls and show each: what it is mapped to, its status, what was measured and why."""
    loaded = load_project(project)
    if bundle is not None:
        # Before the main path is walked, which may take long.
        check_target(bundle)
    decision = _decision(loaded, online=online)
    if bundle is not None:
        _bundle(loaded, bundle, with_items=with_items)
    if as_json:
        typer.echo(json_line(_document(loaded, decision)))
    else:
        show(output(), decision)
    if decision.facts["verdict"] == "fail":
        raise typer.Exit(1)


def _decision(project: Project, *, online: bool) -> Artifact:
    decision = walk(project, "decision", online=online).decision
    if decision is None:
        raise AssertionError("the goal was a decision")
    return decision


def _document(project: Project, decision: Artifact) -> dict[str, Any]:
    return {"project": project.settings.project, "decision": {"digest": decision.digest, **decision.facts}}


def _bundle(project: Project, folder: Path, *, with_items: bool) -> None:
    with chain(project) as tied:
        dossier = flow.dossier(project, ledger=tied.verified)
        files = compliance.payload(dossier, tied.keys, with_items=with_items)
        entries = tied.entries(dossier.digests)
        write_bundle(folder, files, statement=compliance.statement(dossier), keys=tied.keys, ledger=tied.ledger, entries=entries)
    errors().print(f"bundle     {folder}; check it anywhere with: python -m metier.audit.verify {folder}", soft_wrap=True)


def approve(
    project: options.ProjectPath = Path(),
    *,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who approves; not the author.")],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What was looked at, and under which conditions.")] = "",
    control: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="ID", help="Control that this person attests, or takes upon themselves; may be given several times."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Approve the present evidence as somebody else than its author, and attest controls that only a person can."""
    loaded = load_project(project)
    with chain(loaded) as tied:
        approval, decision = flow.approve(loaded, by=by, note=note, controls=control or (), recorder=tied.keep, record=tied.record, ledger=tied.verified)
    if as_json:
        typer.echo(
            json_line({"project": loaded.settings.project, "approval": {"digest": approval.digest, **approval.facts}, "decision": decision_document(decision)})
        )
        return
    typer.echo(f"approval   {approval.digest[:12]}  by {clean(approval.facts['by'])}, of the evidence {approval.facts['evidence'][:12]}")
    typer.echo(f"decision   {decision.digest[:12]}  {decision.facts['verdict']}")
    if (reason := refusal(decision)) is not None:
        typer.echo(clean(reason))


def show(console: Console, decision: Artifact) -> None:
    """Print a decision as a table of controls and one of regimes."""
    facts = decision.facts
    console.print(_controls(facts))
    console.print()
    console.print(_regimes(facts))
    approved = ", ".join(facts["approved_by"]) or "nobody yet"
    console.print(
        f"\nverdict    {facts['verdict']}\nauthor     {clean(facts['author'])}; approved by {clean(approved)}\nevidence   {facts['evidence'][:12]}",
        soft_wrap=True,
    )
    console.print(f"decision   {decision.digest[:12]}  {decision.file('decision.md')}", soft_wrap=True)
    if (reason := refusal(decision)) is not None:
        console.print(f"\n{clean(reason)}", soft_wrap=True)


def _controls(facts: Mapping[str, Any]) -> Table:
    table = Table(title="controls", title_justify="left", box=None, pad_edge=False)
    table.add_column("control", no_wrap=True)
    table.add_column("mapped to")
    table.add_column("status", no_wrap=True)
    table.add_column("measured", justify="right")
    table.add_column("threshold", justify="right")
    table.add_column("why")
    for name, entry in facts["controls"].items():
        status = Text(entry["status"], style=_COLOURS.get(entry["status"], ""))
        mark = f"{name} *" if entry["critical"] else name
        table.add_row(mark, clean(entry["clause"]), status, number(entry["measured"], 4), number(entry["threshold"], 4), clean(entry["why"]))
    return table


def _regimes(facts: Mapping[str, Any]) -> Table:
    table = Table(title="* critical; weighs three times", title_justify="left", box=None, pad_edge=False)
    table.add_column("regime")
    for name in ("decided of applicable", "passed of decided", "blocked"):
        table.add_column(name, justify="right")
    for name, entry in facts["regimes"].items():
        shares = ["-" if entry[key] is None else f"{entry[key]:.0%}" for key in ("coverage", "pass_rate")]
        table.add_row(clean(name), *shares, "yes" if entry["blocked"] else "no")
    return table
