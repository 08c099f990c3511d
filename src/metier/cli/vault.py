"""`metier vault`: originals read back with a purpose, the key exchanged, a person forgotten. All of it is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from metier import audit
from metier.cli import options
from metier.cli.console import clean, errors
from metier.cli.results import json_line
from metier.errors import InputError
from metier.events import Event, now
from metier.privacy.vault import KeyFile, Vault, erase, restored, tokens_in
from metier.project import PROJECT_FILE, load_project
from metier.store import write_atomically

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Originals of replaced values, kept encrypted and apart.")

Folder = Annotated[Path, typer.Argument(metavar="VAULT", help="Folder of the vault.")]
Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="File of the master key.")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Who asks, as the log will show it.")]
Purpose = Annotated[str, typer.Option("--purpose", metavar="TEXT", help="What for, as the log will show it.")]
Project = Annotated[Path | None, typer.Option("--project", metavar="FOLDER", help="Project whose log keeps it.", show_default="the vault's own log")]


@contextmanager
def _opened(folder: Path, key: Path, project: Path | None) -> Iterator[tuple[Vault, Callable[[Event], Any]]]:
    """Give a vault and what records, in the project's log or in one of the vault's own (`VAULT/.metier`)."""
    if not folder.is_dir():
        raise InputError(f"there is no vault {folder}\n    -> one is made by: metier data deidentify IN --field text --out OUT --vault {folder} --key FILE")
    if project is not None:
        loaded = load_project(project)
        root, settings = loaded.root, loaded.settings.audit
    else:
        root, settings = folder, audit.AuditSettings()
    if (folder / PROJECT_FILE).exists():
        raise InputError(f"{folder} is a project, not a vault\n    -> name the vault's folder, and the project by --project")
    vault = Vault(folder, KeyFile(key))
    try:
        with audit.open_project_ledger(root, settings) as ledger:
            yield vault, ledger.record
    finally:
        vault.close()


@app.command()
def reveal(
    vault: Folder,
    tokens: Annotated[list[str] | None, typer.Argument(metavar="[TOKEN...]", help="Tokens, as they stand in text or spans.")] = None,
    *,
    key: Key,
    name: Name,
    purpose: Purpose,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Restore this text instead.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the restored text goes.")] = None,
    project: Project = None,
    as_json: options.Json = False,
) -> None:
    """Print what tokens stand for, or restore a text. Who asked and why is logged first; without a log nothing is revealed."""
    if (file is None) == (not tokens) or (file is None) != (out is None):
        raise InputError("name tokens, or a file and where its restored text goes\n    -> metier vault reveal VAULT TOKEN ..., or --file IN --out OUT")
    text = None if file is None else file.read_text(encoding="utf-8")
    wanted = list(tokens or []) if text is None else tokens_in(text)
    with _opened(vault, key, project) as (opened, record):
        found = opened.reveal([token.rpartition(":")[2].rstrip("]") for token in wanted], purpose=purpose, name=name, record=record)
    if text is not None and out is not None:
        write_atomically(out, restored(text, {item.token: item for item in found}).encode(), mode=0o600)
        errors().print(f"wrote {out}: {len(found)} of {len(wanted)} tokens restored")
    elif as_json:
        typer.echo(json_line([asdict(item) for item in found]))
    else:
        for item in found:
            typer.echo(f"{item.token}  {item.entity}  {clean(item.value)}")
        if missing := len(wanted) - len(found):
            errors().print(f"{missing} tokens are not in the vault, or their person was forgotten")


@app.command()
def rotate(
    vault: Folder,
    *,
    key: Key,
    name: Name,
    reencrypt: Annotated[bool, typer.Option("--reencrypt", help="Give every original a new key, too.")] = False,
    project: Project = None,
) -> None:
    """Exchange the master key: the key file holds another one afterwards. Keep it in your backup; the old one opens old backups only."""
    with _opened(vault, key, project) as (opened, record):
        wrapped = opened.rotate(name=name, record=record, reencrypt=reencrypt)
        typer.echo(f"new master key {opened.state().key_id} in {key}; {wrapped} keys wrapped anew")


@app.command("erase")
def forget(
    vault: Folder,
    subject: Annotated[str, typer.Option("--subject", metavar="VALUE", help="The person, as the subject's field named them.")],
    *,
    key: Key,
    name: Name,
    purpose: Purpose,
    search: Annotated[list[Path] | None, typer.Option("--search", metavar="PATH", help="Search this, too: backups, data; may be given again.")] = None,
    project: Project = None,
    as_json: options.Json = False,
) -> None:
    """Forget one person: destroy their key and originals, and search what is left for them; exit 1 if something is elsewhere."""
    with _opened(vault, key, project) as (opened, record):
        done = erase(opened, subject, purpose=purpose, name=name, record=record, also=search or [])
        facts = {"action": "vault erase verified", **{field: value for field, value in asdict(done).items() if field != "still_in"}}
        record(Event("erasure", name, now(), {**facts, "files_that_still_hold_something": len(done.still_in)}))
    if as_json:
        typer.echo(json_line(asdict(done)))
    else:
        typer.echo(f"forgotten: {done.originals} originals; searched {done.files} files, {done.bytes} bytes; too short to search for: {done.not_searched}")
    for place in done.still_in:
        errors().print(f"still holds something of the person: {clean(place)}")
    if done.still_in:
        raise typer.Exit(1)


@app.command()
def status(vault: Folder, *, key: Key, as_json: options.Json = False) -> None:
    """Say what a vault holds, in numbers, and that its key opens it."""
    opened = Vault(vault, KeyFile(key)) if vault.is_dir() else None
    if opened is None:
        raise InputError(f"there is no vault {vault}\n    -> check the path")
    state = opened.state()
    opened.close()
    if as_json:
        typer.echo(json_line(asdict(state)))
        return
    typer.echo(f"vault of {clean(state.project)}, made {state.created}, under key {state.key_id}")
    typer.echo(f"{state.originals} originals of {state.subjects} persons (all whom no field names count as one)")
    typer.echo("while it is kept the data is pseudonymised, not anonymous (PIPL 73, GDPR 4(5))")
