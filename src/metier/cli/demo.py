"""`metier demo`: the whole main path on a project that an installed package writes, up to an answer over HTTP and a verified log."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.request import Request, urlopen

import typer

from metier import demo as demos
from metier import flow, registry, serving
from metier.artifacts import Artifact
from metier.cli import options
from metier.cli.chain import Chain, chain
from metier.cli.console import errors, output
from metier.cli.results import document, json_line, show
from metier.cli.run import walk
from metier.cli.serve import application, connect
from metier.compliance import LedgerFacts
from metier.flow import Outcome
from metier.people import same_person
from metier.project import Project
from metier.serving import ApiKeys

__all__ = ["demo"]

_APPROVER = "Second Person"
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Ending:
    """What happened after the first decision: who approved, what was released, what it answered over HTTP, what the log says."""

    outcome: Outcome
    approval: Artifact
    url: str
    answer: dict[str, Any] | None
    log: LedgerFacts


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder of the demo project.")] = Path("demo"),
    *,
    seed: options.Seed = 0,
    scale: Annotated[float, typer.Option("--scale", min=0.001, help="How much data: 1 is the full demo.")] = 1.0,
    name: Annotated[str | None, typer.Option("--demo", metavar="NAME", help="Which demo, where several are installed.")] = None,
    as_json: options.Json = False,
    processes: options.Processes = None,
) -> None:
    """Write a complete project and run it: data, training, evaluation, decision, release, one answer over HTTP, the log verified.

    Start it again and it goes on where it was. The demo plays both the author and the second person who approves, and says so.
    """
    project = demos.prepare(folder, name=name, seed=seed, scale=scale)
    errors().print(f"the project is in {folder}: {project.settings.project}; stop it whenever you like, the same command goes on")
    outcome = walk(project, "decision", processes=processes)
    if outcome.evidence is None or outcome.decision is None:
        raise AssertionError("the goal was a decision")
    if outcome.decision.facts["verdict"] == "fail":
        typer.echo(json_line(document(outcome))) if as_json else show(output(), outcome, folder)
        raise typer.Exit(1)
    ending = _finish(project, outcome, outcome.evidence, outcome.decision)
    if as_json:
        typer.echo(json_line(document(ending.outcome, ending.log) | {"answer": ending.answer}))
    else:
        show(output(), ending.outcome, folder, after=_lines(ending, flow.author(project)))


def _finish(project: Project, outcome: Outcome, evidence: Artifact, decision: Artifact) -> _Ending:
    with chain(project) as tied:
        approval, decision = _approve(project, evidence, decision, tied)
        release = flow.release(project, tied.keys, recorder=tied.keep, record=tied.record, ledger=tied.verified)
    question = None if outcome.evaluation is None else outcome.evaluation.facts["question"]
    url, answer = _ask(project, release, question["text"]) if question else ("", None)
    with chain(project) as tied:
        return _Ending(replace(outcome, decision=decision, release=release), approval, url, answer, tied.verified())


def _approve(project: Project, evidence: Artifact, decision: Artifact, tied: Chain) -> tuple[Artifact, Artifact]:
    """Play the second person, who takes upon themselves what this version cannot decide; an approval that is there is kept."""
    given = [item for item in registry.approvals_of(evidence, project.store) if same_person(item.facts["by"], _APPROVER)]
    if given and decision.facts["verdict"] == "pass":
        return given[-1], decision
    waiting = [name for name, entry in decision.facts["controls"].items() if entry["blocks"] and entry["check"] != "separate_approval"]
    note = "played by the demo: nobody looked at anything"
    return flow.approve(project, by=_APPROVER, note=note, controls=waiting, recorder=tied.keep, record=tied.record, ledger=tied.verified)


def _ask(project: Project, release: Artifact, question: str) -> tuple[str, dict[str, Any]]:
    """Serve the release on a free port of this machine, ask it one question over HTTP with a key of its own, and stop it again."""
    settings = project.settings.serving.model_copy(update={"port": 0, "timeout": _SECONDS})
    keys = ApiKeys(project.store.root / "keys")
    name = f"demo-{secrets.token_hex(4)}"
    body = {"model": release.facts["name"], "messages": [{"role": "user", "content": question}], "temperature": 0}
    with connect(project) as (found, record):
        chosen = [item for item in found if item.name == release.facts["name"]]
        app = application(project, chosen, keys, record, settings)
        head = {"content-type": "application/json", "authorization": f"Bearer {keys.new(name)}"}
        try:
            with serving.background(app, settings) as url:
                request = Request(f"{url}/v1/chat/completions", data=json.dumps(body).encode(), headers=head)  # noqa: S310 - a loopback address
                with urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
                    answer: dict[str, Any] = json.load(response)
        finally:
            keys.revoke(name)
    return url, answer


def _lines(ending: _Ending, author: str) -> Iterator[str]:
    facts, release = ending.approval.facts, ending.outcome.release
    attested = ", ".join(facts["controls"]) or "nothing"
    yield f"approval   {ending.approval.digest[:12]}  by {facts['by']!r} of what {author!r} made; the demo plays both. Taken upon themselves: {attested}"
    if release is not None:
        yield f"release    {release.digest[:12]}  {release.facts['name']}, signed"
    if ending.answer is not None:
        yield f"\nasked over HTTP at {ending.url}, the released expert answers:"
        yield ending.answer["choices"][0]["message"]["content"] + "\n"
    state = "intact" if ending.log.intact else f"NOT intact: {ending.log.fault}"
    yield f"log        {ending.log.size} entries, {state}, root {ending.log.root[:16]}"
