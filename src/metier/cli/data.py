"""`metier data`: build the dataset, look into it, see it as the model will."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metier import models, prepare
from metier.cli import deidentify, fetch, options, provenance
from metier.cli.console import clean, output
from metier.cli.results import json_line
from metier.cli.run import latest, perform
from metier.cli.synth_pii import synth_pii
from metier.models import Encoded
from metier.project import load_project
from metier.records import Record

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The project's dataset, and personal data in files of any kind.")
app.command()(fetch.fetch)
app.command()(deidentify.deidentify)
app.command("policies")(deidentify.show_policies)
app.command()(deidentify.guard)
app.command()(provenance.trace)
app.command()(provenance.impact)
app.command()(provenance.prove)
app.command(name="synth-pii")(synth_pii)

Split = Annotated[Literal["train", "validation", "test"], typer.Option("--split", help="Split that examples are taken from.")]


@app.command()
def build(
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    processes: options.Processes = None,
) -> None:
    """Build the dataset from the project's sources."""
    perform(project, "dataset", as_json=as_json, dry_run=dry_run, online=False, processes=processes)


@app.command()
def inspect(
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
    count: Annotated[int, typer.Option("-n", "--count", min=0, metavar="N", help="Examples and dropped rows to show.")] = 3,
    split: Split = "train",
    reason: Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Show rows dropped for this reason.")] = None,
    seed: options.Seed = 0,
) -> None:
    """Say what is in the dataset: counts, lengths, drops, sources, examples."""
    dataset = latest(load_project(project), "dataset")
    facts = prepare.summary(dataset)
    examples = prepare.examples(dataset, split, count=count, seed=seed)
    drops = prepare.dropped(dataset, reason=reason, count=count if reason else 0)["drops"]
    if as_json:
        typer.echo(json_line({**facts, "examples": examples, "dropped": drops}))
        return
    console = output()
    console.print(f"dataset {facts['digest'][:12]}: {facts['records']} records of {facts['rows']} rows")
    for table in _tables(facts):
        console.print()
        console.print(table)
    for example in examples:
        console.print(f"\nexample {example['id'][:12]}, {example['task']}, {example['language']}", style="bold")
        for message in example["messages"]:
            console.print(f"{message['role']}: {clean(message['content'])}")
    for drop in drops:
        console.print(f"\ndropped {drop['id'][:12]} by {drop['step']}: {clean(drop['reason'])}  ({clean(drop['source'])})\n{clean(drop['content'])}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if "%" in column or column in ("records", "rows", "malformed", "bytes") else "left")
    return table


def _tables(facts: Mapping[str, Any]) -> Iterator[Table]:
    for name, counts in facts["counts"].items():
        table = _table(f"records by {name}", name, "records")
        for key, value in counts.items():
            table.add_row(clean(key), str(value))
        yield table
    shares = list(next(iter(facts["characters"].values()), {}))
    table = _table("length in characters", "split", *shares)
    for split, lengths in facts["characters"].items():
        table.add_row(split, *(str(lengths[share]) for share in shares))
    yield table
    table = _table("dropped", "reason", "rows")
    for reason, number in facts["drops"].items():
        table.add_row(clean(reason), str(number))
    yield table
    table = _table("sources", "file", "format", "encoding", "decided by", "rows", "malformed", "bytes", "licence", "basis")
    for entry in facts["register"]:
        keys = ("uri", "format", "encoding", "encoding_reason", "rows", "malformed", "bytes", "licence", "basis")
        table.add_row(*(clean(str(entry[key])) if entry[key] is not None else "-" for key in keys))
    yield table


@app.command()
def preview(
    project: options.ProjectPath = Path(),
    *,
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Examples to show.")] = 3,
    split: Split = "train",
    seed: options.Seed = 0,
    tokens: Annotated[bool, typer.Option("--tokens", help="List every token with its number.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show examples as the model sees them: rendered text, learnt text in colour (piped: in [[...]]), token counts."""
    loaded = load_project(project)
    records = prepare.sample(latest(loaded, "dataset"), split, count=count, seed=seed)
    base = models.resolve(loaded.settings.base, root=loaded.root)
    chat = models.Chat(models.load_tokenizer(base))
    console = output()
    for record in records:
        encoded = chat.encode(record.messages)
        pieces = _pieces(chat, encoded)
        if as_json:
            shown = [{"text": text, "learn": learnt} for text, learnt in pieces]
            typer.echo(json_line({"id": record.id, "tokens": list(encoded.tokens), "learn": list(encoded.learn), "pieces": shown}))
            continue
        _show(console, record, encoded, pieces, limit=loaded.settings.training.batch.maximum_tokens)
        if tokens:
            typer.echo(_listed(chat, encoded))


def _pieces(chat: models.Chat, encoded: Encoded) -> list[tuple[str, bool]]:
    """Return the text in stretches that are learnt or not; an answer and what stands before it are tokenised apart."""
    found = []
    for learnt, run in itertools.groupby(zip(encoded.tokens, encoded.learn, strict=True), key=lambda pair: pair[1]):
        found.append((_decode(chat, [token for token, _ in run]), learnt))
    return found


def _decode(chat: models.Chat, tokens: Sequence[int]) -> str:
    return str(chat.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _show(console: Console, record: Record, encoded: Encoded, pieces: Sequence[tuple[str, bool]], *, limit: int) -> None:
    learnt = sum(encoded.learn)
    note = f"; longer than training.batch.maximum_tokens ({limit}): left out" if len(encoded) > limit else ""
    console.print(f"{record.id[:12]}, {record.task}, {record.language}: {len(encoded)} tokens, {learnt} of them learnt{note}", style="bold")
    text = Text()
    for piece, learn in pieces:
        shown = clean(piece)
        if console.is_terminal:
            text.append(shown, style="black on green" if learn else "")
        else:
            text.append(f"[[{shown}]]" if learn else shown)
    console.print(text)
    console.print()


def _listed(chat: models.Chat, encoded: Encoded) -> str:
    marks = zip(encoded.tokens, encoded.learn, strict=True)
    return "\n".join(f"{token:>8} {'learnt' if learn else '      '} {_decode(chat, [token])!r}" for token, learn in marks) + "\n"
