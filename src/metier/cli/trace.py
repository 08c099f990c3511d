"""`metier trace`: from an answer to the source's bytes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.tree import Tree

from metier import registry
from metier.cli import options
from metier.cli.chain import chain
from metier.cli.console import clean, output
from metier.cli.results import json_line
from metier.project import load_project
from metier.registry.lineage import Node

__all__ = ["trace"]

_LONG = 16


def trace(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="Id of an answer, digest (or its beginning), record id, or source file.")],
    project: options.ProjectPath = Path(),
    *,
    records: Annotated[int, typer.Option("-n", "--records", min=0, metavar="N", help="Records shown of a dataset, answers of a release.")] = 5,
    as_json: options.Json = False,
) -> None:
    """Show what a thing comes from, down to file, line and SHA-256 of the source, and what came of it."""
    loaded = load_project(project)
    with chain(loaded) as tied:
        found = registry.trace(loaded.store, what, find=tied.answers, records=records)
    if as_json:
        typer.echo(json_line({"project": loaded.settings.project, **found.as_facts()}))
        return
    console = output()
    console.print("comes from")
    console.print(_tree(found.back))
    console.print("\nbecame")
    console.print(_tree(found.forward))


def _tree(node: Node) -> Tree:
    tree = Tree(_label(node), highlight=False)
    for child in node.children:
        tree.add(_tree(child))
    return tree


def _label(node: Node) -> str:
    said = _facts(node.facts)
    return clean(f"{node.kind} {_short(node.id)}" + (f"  {said}" if said else ""))


def _facts(facts: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in facts.items() if value not in (None, "", [])}
    return ", ".join(f"{name} {_short(str(value)) if not isinstance(value, list) else ', '.join(map(str, value))}" for name, value in shown.items())


def _short(text: str) -> str:
    hexadecimal = len(text) > _LONG and all(char in "0123456789abcdef" for char in text)
    return text[:_LONG] if hexadecimal else text
