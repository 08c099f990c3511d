"""`metier audit`: verify the log or what was taken from it, show its newest head, export it, prove an entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from metier import audit
from metier.audit import Verdict
from metier.audit.verify import pin, read_key, read_known_heads
from metier.audit.verify import verify as verify_file
from metier.cli import options
from metier.events import Event, now
from metier.project import PROJECT_FILE, load_project
from metier.store import write_atomically

__all__ = ["app"]

_PROJECT = (".yaml", ".yml")
"""How project files end; logs, bundles and proofs end otherwise."""

app = typer.Typer(no_args_is_help=True, help="The log of everything that must be accountable.")

PublicKeyFile = Annotated[Path | None, typer.Option("--public-key", metavar="FILE", help="Who must have signed: a public key in PEM form.")]
KeyId = Annotated[str | None, typer.Option("--key-id", metavar="HEX", help="Who must have signed: 16 or more digits of the key's SHA-256.")]
KnownHead = Annotated[Path | None, typer.Option("--head", metavar="FILE", help="What the log has to continue: a signed head or a heads file that you kept.")]


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(metavar="[PATH]", help="Project, exported log, bundle folder or proof.", show_default="the project in this folder"),
    ] = Path(),
    *,
    public_key: PublicKeyFile = None,
    key_id: KeyId = None,
    head: KnownHead = None,
    as_json: options.Json = False,
) -> None:
    """Check a project's log, an exported log, a bundle or a proof, with the public key only; exit 1 if it does not verify."""
    key = None if public_key is None else read_key(public_key)
    heads = () if head is None else read_known_heads(head)
    if path.suffix in _PROJECT or (path / PROJECT_FILE).exists():
        loaded = load_project(path)
        verdict = pin(audit.offline.verify_log(audit.project_places(loaded.root, loaded.settings.audit), key, heads), key_id)
    else:
        verdict = verify_file(path, key=key, key_id=key_id, heads=heads)
    _show(verdict, as_json=as_json)
    raise typer.Exit(0 if verdict.intact else 1)


@app.command()
def head(
    project: options.ProjectPath = Path(),
    *,
    restore: Annotated[bool, typer.Option("--restore", help="Write a lost heads file anew, after a check of every row of the database.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the newest signed head: what to keep, or to give to somebody, so that the log can never be cut behind it."""
    loaded = load_project(project)
    settings = loaded.settings.audit
    if restore and not audit.project_places(loaded.root, settings).heads.exists():
        with audit.open_project_ledger(loaded.root, settings, restore_heads=True) as ledger:
            ledger.record(Event("access", "metier audit head --restore", now(), {"action": "heads file written anew"}))
    found = audit.offline.newest_head(audit.project_places(loaded.root, settings))
    if as_json:
        typer.echo(json.dumps({"origin": found.origin, "size": found.size, "root": found.root.hex(), "time": found.time, "note": found.note}))
    else:
        typer.echo(found.note, nl=False)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
) -> None:
    """Write the log, without the encrypted bodies, to one file that verifies on its own."""
    loaded = load_project(project)
    found = audit.offline.export_log(audit.project_places(loaded.root, loaded.settings.audit), file)
    if as_json:
        typer.echo(json.dumps({"path": str(file), "origin": found.origin, "size": found.size, "root": found.root.hex()}))
    else:
        typer.echo(f"wrote {file}: {found.size} entries, root {found.root.hex()}\ncheck it anywhere with: python -m metier.audit.verify {file}")


@app.command()
def proof(
    entry: Annotated[int, typer.Argument(metavar="ENTRY", min=0, help="Number of the entry, from 0.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    project: options.ProjectPath = Path(),
    *,
    as_json: options.Json = False,
) -> None:
    """Write a file that proves that one entry is in the log, to somebody who has nothing else of it."""
    loaded = load_project(project)
    data = audit.offline.prove(audit.project_places(loaded.root, loaded.settings.audit), entry)
    write_atomically(file, data)
    verdict = verify_file(file)
    _show(verdict, as_json=as_json)


def _show(verdict: Verdict, *, as_json: bool) -> None:
    # What came out of a log or a bundle is escaped by `Verdict.lines`, and here by JSON in ASCII.
    typer.echo(json.dumps(verdict.document()) if as_json else "\n".join(verdict.lines()))
