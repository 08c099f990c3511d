"""`metier data trace`, `impact` and `prove`: to the source's bytes, to everything a person or file reached, and that the splits share nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from metier import prepare, registry
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, output
from metier.cli.results import json_line
from metier.errors import InputError
from metier.project import companions, load_project
from metier.registry.impact import Reached
from metier.registry.lineage import Node, Trace

__all__ = ["impact", "prove", "trace"]


def trace(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Id of a record, or its first characters (four and more).")],
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
) -> None:
    """Show what a record of the dataset comes from: every step, the records before it, the file, the line and its bytes' digest."""
    loaded = load_project(project)
    found = registry.trace(loaded.store, record)
    if found.kind != "record":
        raise InputError(f"{record!r} is the {found.kind} of that digest, not a record\n    -> metier trace shows everything that is not a record")
    if as_json:
        typer.echo(json_line({"project": loaded.settings.project, **found.as_facts()}))
        return
    output().print("\n".join(_steps(found)), highlight=False, markup=False)


def _steps(found: Trace) -> Iterator[str]:
    for origin in found.back.children:
        facts = origin.facts
        yield clean(f"record {found.id}")
        yield clean(f"  dataset  {str(facts['dataset'])[:16]}")
        for number, step in enumerate(facts["transforms"], 1):
            yield clean(f"  step {number:<3} {step}")
        yield clean(f"  source   {origin.id}, {facts.get('position')}")
        yield clean(f"  sha256   {facts.get('sha256')}  ({facts.get('bytes_now', 'not looked at')})")
        yield clean(f"  licence  {facts.get('licence') or 'not stated'}; basis {facts.get('basis') or 'not stated'}")
    for node in found.forward.children:
        yield from _below(node, 1)


def _below(node: Node, depth: int) -> Iterator[str]:
    yield clean(f"{'  ' * depth}-> {node.kind} {node.id[:16]}")
    for child in node.children:
        yield from _below(child, depth + 1)


def prove(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of a finished dataset, with its proof.json.")],
    *,
    as_json: options.Json = False,
) -> None:
    """Recompute the proof that the splits share nothing, from the dataset's folder alone."""
    different = prepare.check_proof(dataset)
    if as_json:
        typer.echo(json_line({"dataset": str(dataset), "holds": not different, "different": different}))
    else:
        lines = [f"different: {clean(item)}" for item in different] or ["the proof holds: recomputed from the files, nothing differs"]
        output().print("\n".join(lines), highlight=False, markup=False)
    if different:
        raise typer.Exit(1)


def impact(
    project: options.ProjectPath = Path(),
    *,
    subject: Annotated[str | None, typer.Option("--subject", metavar="KEY", help="A person's key as it stands in the sources.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="FILE", help="A source file, as the register names it.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show which datasets, runs, adapters, releases and answers the records of a person, or of a file, reached."""
    if (subject is None) == (source is None):
        raise InputError("name a person or a file\n    -> metier data impact --subject KEY, or --source FILE, one of the two")
    loaded = load_project(project)
    pseudonym = None if subject is None else prepare.pseudonym(loaded.store.secret("surrogates"), "subject", subject)
    others = {other.settings.project: other.store for other in companions(loaded)}
    with chain(loaded) as tied:
        found = registry.impact(loaded.store, subject=pseudonym, source=source, find=tied.answers, companions=others)
    if as_json:
        typer.echo(json_line({"project": loaded.settings.project, **found.as_facts()}))
        return
    lines = [line for item in found.reached for line in _reached(item)]
    what = "the records of this person" if subject is not None else f"the records of {source}"
    output().print("\n".join(lines or [clean(f"{what} are in no dataset of this project")]), highlight=False, markup=False)


def _reached(item: Reached) -> Iterator[str]:
    splits = ", ".join(f"{count} in {split}" for split, count in item.records.items()) or "no record"
    yield f"dataset {item.dataset[:16]}: {splits}; {item.dropped} dropped rows"
    yield from (f"  record {record}" for record in item.examples)
    for kind, digests in item.became.items():
        yield from (f"  {kind} {digest[:16]}" for digest in digests)
    for project, became in item.elsewhere.items():
        yield from (clean(f"  in {project}: {kind} {digest[:16]}") for kind, digests in became.items() for digest in digests)
    if item.became:
        yield f"  answers given by these adapters: {item.answers}"
