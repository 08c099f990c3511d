"""`metier chat`: base model and expert answer side by side."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metier import flow, models
from metier.cli import options
from metier.cli.console import clean, errors, output
from metier.cli.results import json_line
from metier.cli.run import latest
from metier.errors import MetierError
from metier.models import GenerationSettings
from metier.project import load_project
from metier.records import Message

__all__ = ["chat"]

Side: TypeAlias = str
_COMMANDS = "/quit ends, /new forgets the conversation"


@dataclass(slots=True)
class _Conversation:
    """One conversation with each side that was asked for; each side sees its own answers."""

    model: models.LocalModel
    settings: GenerationSettings
    history: dict[Side, list[Message]] = field(default_factory=dict)

    def ask(self, question: str) -> dict[Side, str]:
        """Ask every side and remember what it said."""
        answers = {}
        for side, said in self.history.items():
            said.append(Message("user", question))
            with self.model.without_adapter() if side == "base" else contextlib.nullcontext():
                answers[side] = self.model.generate([said], self.settings)[0].text
            said.append(Message("assistant", answers[side]))
        return answers

    def forget(self) -> None:
        """Begin a new conversation."""
        self.history = {side: [] for side in self.history}


def chat(
    project: options.ProjectPath = Path(),
    *,
    question: Annotated[str | None, typer.Option("--question", metavar="TEXT", help="Ask this one question and end.")] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Only the base model answers.")] = False,
    expert_only: Annotated[bool, typer.Option("--expert-only", help="Only the expert answers.")] = False,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    longest: Annotated[int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer, in tokens.")] = 256,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Talk to the base model and to the expert, side by side."""
    if base_only and expert_only:
        raise MetierError("--base-only and --expert-only leave nobody to answer\n    -> give one of them, or none")
    loaded = load_project(project)
    sides = ["base"] if base_only else ["expert"] if expert_only else ["base", "expert"]
    settings = GenerationSettings(max_new_tokens=longest, temperature=temperature, seed=seed)
    talk = _Conversation(flow.open_expert(loaded, latest(loaded, "adapter")), settings, {side: [] for side in sides})
    console = output()
    for asked in [question] if question is not None else _questions():
        if asked == "/new":
            talk.forget()
            continue
        answers = talk.ask(asked)
        talk.settings = replace(talk.settings, seed=talk.settings.seed + 1)
        if as_json:
            typer.echo(json_line({"question": asked, **answers}))
        else:
            _show(console, answers)


def _questions() -> Iterator[str]:
    """Yield what the user types until /quit or the end of the input."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - importing it gives input() its line editing and history
        errors().print(_COMMANDS)
    while True:
        try:
            asked = input("> " if terminal else "").strip()
        except EOFError:
            return
        if asked in ("/quit", "/exit"):
            return
        if asked:
            yield asked


def _show(console: Console, answers: dict[Side, str]) -> None:
    if len(answers) == 1 or not console.is_terminal:
        for side, answer in answers.items():
            console.print(f"{side}: {clean(answer)}")
        return
    table = Table(expand=True)
    for side in answers:
        table.add_column(side, ratio=1)
    table.add_row(*(Text(clean(answer)) for answer in answers.values()))
    console.print(table)
