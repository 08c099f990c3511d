"""`metier plan`: whether prompting would do, how to train, and what it would take, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier import models, training
from metier.artifacts import Artifact
from metier.cli import options
from metier.cli.console import clean, output, reporting
from metier.cli.planned import show_bases, show_plan
from metier.cli.results import json_line
from metier.cli.run import latest
from metier.errors import Fault, InputError, nearest
from metier.models.methods import METHODS
from metier.prepare.generate.retrieval import Index
from metier.project import Project, load_project, members_of
from metier.training import planning

if TYPE_CHECKING:
    from metier.training.planning import Aims

__all__ = ["plan"]

_HERE = "here"


def plan(
    project: options.ProjectPath = Path(),
    *,
    bases: Annotated[list[Path] | None, typer.Option("--bases", metavar="FOLDER", help="Rank base models in this folder; may be given again.")] = None,
    gpu: Annotated[list[str] | None, typer.Option("--gpu", metavar="NAME", help="Also for this accelerator, or all; may be given again.")] = None,
    price: Annotated[list[str] | None, typer.Option("--price", metavar="NAME=AMOUNT", help="What an hour costs, of an accelerator or of `here`.")] = None,
    method: Annotated[str | None, typer.Option("--method", metavar="NAME", help="Decide for this method yourself.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, metavar="R", help="Decide for this rank yourself.")] = None,
    general: Annotated[
        bool | None, typer.Option("--general/--no-general", help="Is the general ability to be kept?", show_default="yes if evaluation.tasks has retention")
    ] = None,
    hours: Annotated[float, typer.Option("--hours", min=0.01, metavar="H", help="The longest training that is acceptable here.")] = 24.0,
    target: Annotated[float, typer.Option("--target", min=0.0, max=1.0, metavar="SHARE", help="Share of right answers that would do.")] = 0.8,
    items: Annotated[int, typer.Option("--items", min=0, metavar="N", help="Validation items a task that the base model is asked; 0: not asked.")] = 40,
    shots: Annotated[int, typer.Option("--shots", min=1, metavar="N", help="Solved examples that are shown.")] = 4,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only: measure nothing, ask nothing, keep nothing.")] = False,
    online: options.Online = False,
) -> None:
    """Say whether prompting would do, which method to train with and why, and what memory, time and money that takes."""
    loaded = load_project(project)
    dataset = latest(loaded, "dataset")
    cache = None if dry_run else loaded.store.root / "plan"
    with reporting() as progress:
        if bases:
            found = planning.compare_bases(planning.find_bases(bases), dataset, _searcher, items=items, shots=shots, seed=seed, progress=progress)
        else:
            ask = planning.Ask(
                aims=_aims(loaded, method, rank, general, hours),
                others=tuple(planning.named(gpu or ())),
                prices=_prices(price or (), [_HERE, *(gpu or ())]),
                items=items,
                shots=shots,
                target=target,
                measure=not dry_run,
                seed=seed,
            )
            base = models.resolve(loaded.settings.base, root=loaded.root, online=online, progress=progress)
            advice = planning.advise(
                dataset,
                base,
                loaded.settings.training,
                ask,
                searcher=_searcher,
                members=_members(loaded, dataset, base, online),
                cache=cache,
                progress=progress,
            )
    name = loaded.settings.project
    if as_json:
        typer.echo(json_line({"project": name, "bases": found} if bases else {"project": name, **advice}))
    elif bases:
        show_bases(output(), found)
    else:
        show_plan(output(), name, advice)


def _members(project: Project, dataset: Artifact, base: models.Base, online: bool) -> tuple[training.Member, ...]:
    """Return the members of a joint training with their newest datasets, this project among them; nobody where it trains by itself."""

    def base_of(other: Project) -> models.Base:
        return base if other is project else models.resolve(other.settings.base, root=other.root, online=online)

    others = members_of(project, base_of, lambda other: latest(other, "dataset"))
    return (training.Member(project.settings.project, dataset, project.store), *others) if others else ()


def _searcher(texts: Sequence[str]) -> Any:
    index = Index(texts)
    return lambda query, count: [number for number, _ in index.search(query, count)]


def _aims(project: Project, method: str | None, rank: int | None, general: bool | None, hours: float) -> Aims:
    if method is not None and method not in METHODS:
        raise InputError(Fault(f"no method is called {method!r}", key="--method", remedy=nearest(method, list(METHODS))))
    kept = "retention" in project.settings.evaluation.tasks if general is None else general
    return planning.Aims(kept, hours, method, rank)


def _prices(given: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    prices: dict[str, float] = {}
    faults = []
    for text in given:
        name, _, amount = text.partition("=")
        try:
            prices[name] = float(amount)
        except ValueError:
            faults.append(Fault(f"{clean(text)!r} is no price", key="--price", remedy="write NAME=AMOUNT, for instance h100=2.5"))
            continue
        if name not in known:
            faults.append(Fault(f"{clean(name)!r} is not planned for", key="--price", remedy=f"name it with --gpu too, or use one of: {', '.join(known)}"))
        elif not 0 <= prices[name] < float("inf"):
            faults.append(Fault(f"{clean(text)!r} is no price", key="--price", remedy="give an amount of 0 or more"))
    if faults:
        raise InputError(faults)
    return prices
