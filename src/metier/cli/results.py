"""What a run made, for machines as one JSON document and for people as tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metier.artifacts import Artifact
from metier.cli.console import clean, span
from metier.compliance import LedgerFacts
from metier.flow import Outcome

__all__ = ["decision_document", "document", "json_line", "number", "show"]

_COLOURS = {"gain": "green", "loss": "red"}
_ABSENT = "-"


def json_line(value: Any) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def document(outcome: Outcome, ledger: LedgerFacts | None = None) -> dict[str, Any]:
    """Return the outcome of a run in the form that machines read; stages that were not reached are None. `ledger` is the log afterwards."""
    return {
        "project": outcome.project,
        "dataset": _dataset(outcome.dataset),
        "run": None if outcome.run is None else _run(outcome.run),
        "adapter": None if outcome.adapter is None else _adapter(outcome.adapter),
        "evaluation": None if outcome.evaluation is None else _evaluation(outcome.evaluation),
        "decision": None if outcome.decision is None else decision_document(outcome.decision),
        "release": None if outcome.release is None else outcome.release.digest,
        "ledger": None if ledger is None else {"size": ledger.size, "root": ledger.root},
        "seconds": round(outcome.seconds, 3),
    }


def _dataset(artifact: Artifact) -> dict[str, Any]:
    facts = artifact.facts
    return {"digest": artifact.digest, "records": facts["records"], "drops": facts["drops"], "splits": facts["counts"]["split"]}


def _run(artifact: Artifact) -> dict[str, Any]:
    return {"digest": artifact.digest, **{key: artifact.facts[key] for key in ("tokens_per_second", "peak_memory_bytes", "final_loss", "seconds")}}


def _adapter(artifact: Artifact) -> dict[str, Any]:
    return {"digest": artifact.digest, "path": str(artifact.path), "trainable_parameters": artifact.facts["trainable_parameters"]}


def _evaluation(artifact: Artifact) -> dict[str, Any]:
    keys = ("base", "tuned", "delta", "n", "invalid", "verdict")
    tasks = {task: {metric: {key: row[key] for key in keys} for metric, row in rows.items()} for task, rows in artifact.facts["tasks"].items()}
    return {"digest": artifact.digest, "path": str(artifact.path), "tasks": tasks}


def decision_document(artifact: Artifact) -> dict[str, Any]:
    """Return a decision in the form that machines read: its digest, the verdict and each control's status."""
    controls = {name: entry["status"] for name, entry in artifact.facts["controls"].items()}
    return {"digest": artifact.digest, "verdict": artifact.facts["verdict"], "controls": controls}


def show(console: Console, outcome: Outcome, project: Path, *, after: Iterable[str] = ()) -> None:
    """Print what a run made, as far as it went, where it lies, what happened `after` it, and commands to go on with."""
    facts = outcome.dataset.facts
    splits = ", ".join(f"{count} {split}" for split, count in facts["counts"]["split"].items())
    console.print(f"dataset    {outcome.dataset.digest[:12]}  {facts['records']} records ({splits}), {sum(facts['drops'].values())} dropped")
    if outcome.run is not None and outcome.adapter is not None:
        run = outcome.run.facts
        rate = f"{run['tokens_per_second']:.0f} tokens/s, {run['peak_memory_bytes'] / 2**30:.1f} GiB at most"
        console.print(f"training   {outcome.run.digest[:12]}  {run['steps']} steps, final loss {run['final_loss']:.3f}, {rate}, {span(run['seconds'])}")
        console.print(f"adapter    {outcome.adapter.digest[:12]}  {outcome.adapter.path}", soft_wrap=True)
    if outcome.evaluation is not None:
        _show_evaluation(console, outcome.evaluation)
    if outcome.decision is not None:
        _show_decision(console, outcome.decision)
    for line in after:
        console.print(clean(line), soft_wrap=True)
    console.print(f"\ntotal time {span(outcome.seconds)}\n\ngo on with:")
    for command in _next(outcome, project):
        console.print(f"  {command}")


def _next(outcome: Outcome, project: Path) -> Iterator[str]:
    place = shlex.quote(str(project))
    # A model that labels texts cannot be talked to.
    chat = [f"metier chat {place}"] if outcome.adapter is None or "task" not in outcome.adapter.facts else []
    if outcome.adapter is None:
        yield f"metier data inspect {place}"
        yield f"metier data preview {place}"
        yield f"metier run {place}"
    elif outcome.evaluation is None:
        yield from chat
        yield f"metier evaluate {place}"
        yield f"metier data preview {place}"
    elif outcome.decision is None:
        yield from chat
        yield f"metier data inspect {place}"
        yield f"metier run {place} --json"
    elif outcome.release is not None:
        yield f"metier keys new {place} --name NAME && metier serve {place}"
        yield f"metier comply {place} --bundle {shlex.quote(str(project) + '-bundle')}"
        yield f"metier audit verify {place}"
    else:
        yield f"metier comply {place}"
        yield f"metier approve {place} --by NAME" if outcome.decision.facts["verdict"] == "awaiting" else f"metier release {place}"
        yield from chat


def _show_decision(console: Console, decision: Artifact) -> None:
    facts = decision.facts
    console.print(f"decision   {decision.digest[:12]}  {facts['verdict']}", soft_wrap=True)
    for name, entry in facts["controls"].items():
        if entry["blocks"] or entry["status"] == "fail":
            console.print(f"  {name:<11}{entry['status']}: {clean(entry['why'])}", soft_wrap=True)


def _show_evaluation(console: Console, evaluation: Artifact) -> None:
    facts = evaluation.facts
    console.print()
    console.print(_scores(facts))
    for level, rows in facts.get("tables", {}).items():
        console.print(_classes(level, rows))
    if facts["format"]:
        console.print(_formats(facts["format"]))
    for line in _retention(facts["retention"]):
        console.print(line)
    for note in facts["notes"]:
        console.print(f"note: {clean(note)}")
    if question := facts["question"]:
        console.print(f"\nquestion: {clean(question['text'])}\n  base:   {clean(question['base'])}\n  expert: {clean(question['tuned'])}")
    console.print(f"\nreport     {evaluation.file('report.html')}", soft_wrap=True)


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return a number for a table; what is not defined is a dash."""
    if value is None:
        return _ABSENT
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _scores(facts: Mapping[str, Any]) -> Table:
    table = Table(title="base against tuned", title_justify="left", box=None, pad_edge=False)
    for name in ("task", "metric"):
        table.add_column(name)
    for name in ("base", "tuned", "difference", f"{facts['confidence']:.0%} interval", "n", "invalid (base, tuned)"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for task, rows in facts["tasks"].items():
        for metric, row in rows.items():
            delta, invalid = row["delta"], row["invalid"]
            table.add_row(
                task,
                metric if row["higher_is_better"] else f"{metric} (lower is better)",
                number(row["base"]["value"]),
                number(row["tuned"]["value"]),
                number(delta["value"], sign=True),
                f"{number(delta['low'], sign=True)} .. {number(delta['high'], sign=True)}",
                str(row["n"]),
                f"{invalid['base']}, {invalid['tuned']}",
                Text(row["verdict"], style=_COLOURS.get(row["verdict"], "")),
            )
    return table


def _classes(level: str, classes: Mapping[str, Any]) -> Table:
    """Precision, recall and F1 of every class or type of the tuned model, and their averages."""
    table = Table(title=f"\nevery class, {level} level (tuned)", title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "interval", "support", "said"):
        table.add_column(name, justify="right")
    for name, row in classes.items():
        f1 = row["f1"]
        figures = (number(row["precision"]), number(row["recall"]), number(f1["value"]), f"{number(f1['low'])} .. {number(f1['high'])}")
        table.add_row(clean(name), *figures, str(row["support"]), str(row["said"]))
    return table


def _formats(formats: Mapping[str, Any]) -> Table:
    """The gain of each written task taken apart: answers in a valid form, and the score of those that are."""
    table = Table(title="\nformat apart from knowledge", title_justify="left", box=None, pad_edge=False)
    table.add_column("task")
    for name in ("valid answers, base", "tuned", "score if valid, base", "tuned", "gain by format", "gain by knowledge"):
        table.add_column(name, justify="right")
    for task, split in formats.items():
        base, tuned, delta = split["base"], split["tuned"], split["delta"]
        table.add_row(
            task,
            f"{base['valid_rate']:.0%}",
            f"{tuned['valid_rate']:.0%}",
            number(base["score_if_valid"]),
            number(tuned["score_if_valid"]),
            number(delta["format"], sign=True),
            number(delta["knowledge"], sign=True),
        )
    return table


def _retention(facts: Mapping[str, Any] | None) -> Iterator[str]:
    if facts is None:
        return
    lost = facts["forgetting"]
    forgotten = f"forgotten {number(lost['value'])} ({number(lost['low'])} .. {number(lost['high'])})"
    if not facts["measurable"]:
        yield f"\nretention  not measurable: the base model is not clearly above chance in any family of the probe; {forgotten}, n {facts['n']}"
        return
    kept = facts["retention"]
    yield f"\nretention  {number(kept['value'])} ({number(kept['low'])} .. {number(kept['high'])}) of the general ability is kept; {forgotten}, n {facts['n']}"
