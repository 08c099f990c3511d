"""`metier data deidentify`, `policies` and `guard`: personal identifiers in any file of rows, without a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from metier import privacy
from metier.cli import options
from metier.cli.console import clean, errors, output, reporting
from metier.cli.results import json_line
from metier.engines import LOCAL, Processes
from metier.errors import InputError, MetierError
from metier.prepare.deidentify_file import FileJob, Shown, deidentify_file, peek, quarantine_of
from metier.prepare.policy_diff import Difference, compare_policies
from metier.privacy.guard import scan_files
from metier.privacy.keyed import SHORTEST_KEY
from metier.privacy.once import AUTO
from metier.privacy.policy import Policy, load_policy, policies
from metier.privacy.vault import KeyFile, make_key

__all__ = ["deidentify", "guard", "show_policies"]

_MASK = "\u2588"

Source = Annotated[Path, typer.Argument(metavar="IN", help="JSONL, CSV, TSV or Parquet file.")]
Fields = Annotated[list[str] | None, typer.Option("--field", metavar="NAME", help="Field with text, dotted where it is inside; may be given again.")]
Language = Annotated[Literal["auto", "zh", "en"], typer.Option("--language", help="Language of the text; auto: by its letters.")]
PackName = Annotated[str | None, typer.Option("--pack", metavar="NAME", help="Look for the identifiers of this pack, too.")]
Encoding = Annotated[str, typer.Option("--encoding", metavar="NAME", help="Encoding of JSONL, CSV and TSV.")]


def deidentify(
    source: Source,
    *,
    field: Fields = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="OUT", help="File to write, of the same form.")] = None,
    policy: Annotated[str, typer.Option("--policy", metavar="NAME-OR-FILE", help="What is done with what: see metier data policies.")] = "safe-harbor",
    replace: Annotated[
        Literal["surrogate", "mask", "hash", "token"] | None,
        typer.Option("--replace", help="One disguise in place of the policy's.", show_default="the policy's"),
    ] = None,
    dates: Annotated[Literal["year", "shift"] | None, typer.Option("--dates", help="Leave the year, or move.", show_default="the policy's")] = None,
    language: Language = "auto",
    pack: PackName = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="NAME", help="Field that says whose row it is: dates move together.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Secret of the surrogates, made if it is not there.")] = None,
    spans: Annotated[bool, typer.Option("--spans", help="Add a field `spans`: what was replaced, where, by which rule.")] = False,
    vault: Annotated[Path | None, typer.Option("--vault", metavar="FOLDER", help="Keep the originals here, encrypted; needs --key.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show what would be replaced, and by which rule; write nothing.")] = False,
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Texts that a preview shows.")] = 10,
    encoding: Encoding = "utf-8",
    sweep: Annotated[bool, typer.Option("--sweep/--no-sweep", help="Search the result a second time by other rules.")] = True,
    processes: options.Processes = 1,
    as_json: options.Json = False,
) -> None:
    """Replace personal identifiers in a file; exit 1 if rows had to be set aside."""
    chosen = load_policy(policy).disguised(replace or ("token" if vault else None)).dated(dates)
    job = FileJob(
        source=source,
        fields=_fields(field),
        policy=chosen,
        key=b"preview of this process" if preview else _key(key, vault),
        language=AUTO if language == "auto" else language,
        pack=pack,
        subject=subject,
        encoding=encoding,
        spans=spans,
        vault=None if vault is None or key is None else (vault, key),
        sweep=sweep,
    )
    if preview:
        _preview(peek(job, count=count), chosen)
        return
    if out is None:
        raise InputError("--out is missing\n    -> name the file to write, or look first with --preview")
    with reporting() as progress:
        report = deidentify_file(job, out, engine=LOCAL if processes in (None, 1) else Processes(processes or 1), progress=progress)
    if as_json:
        typer.echo(json_line({name: getattr(report, name) for name in report.__slots__}))
    else:
        found = ", ".join(f"{clean(kind)} {number}" for kind, number in report.replaced.items()) or "nothing"
        typer.echo(f"wrote {out}: {report.written} of {report.rows} rows; replaced: {found}\n{report.status}")
        if report.untouched:
            typer.echo(f"not looked at: {', '.join(map(clean, report.untouched))}")
    for name, number in report.still_in.items():
        errors().print(f"warning: in {number} rows the field {clean(name)} holds values that were replaced elsewhere; add --field {clean(name)}")
    if report.quarantined:
        errors().print(f"{report.quarantined} rows were set aside; which and why: {quarantine_of(out)}")
        raise typer.Exit(1)


def _fields(given: list[str] | None) -> tuple[str, ...]:
    if not given:
        raise InputError("--field is missing\n    -> name the field with the text: --field text, or --field messages.content")
    return tuple(dict.fromkeys(given))


def _key(path: Path | None, vault: Path | None) -> bytes:
    """Return the secret of a run; empty without a file: one is made for this job alone, and gone with it."""
    if path is None:
        if vault is not None:
            raise InputError("a vault needs a key file\n    -> add --key FILE; it is made if it is not there. Keep it apart from vault and data")
        return b""
    if not path.exists():
        if vault is not None and (vault / "vault.sqlite").exists():
            raise MetierError(f"{vault} has a vault, and {path}, its key, is not there\n    -> give the file of the key that the vault was made with")
        make_key(path)
        errors().print(f"note: made a new key, {path}; whoever has it can test guesses, so keep it apart from the data")
    key = KeyFile(path).read() if vault is not None else path.read_bytes()
    if len(key) < SHORTEST_KEY:
        raise MetierError(f"{path} has {len(key)} bytes\n    -> a key has at least {SHORTEST_KEY} random ones")
    return key


def _preview(found: Iterator[Shown], policy: Policy) -> None:
    """Show what would be replaced. Text and originals are shown on a terminal only; elsewhere blocks stand for the originals, and no text."""
    console = output()
    if console.is_terminal:
        errors().print("personal data is shown below; nothing is written", style="bold red")
    seen: Counter[str] = Counter()
    for item in found:
        where = f"row {item.row.number}" + (f", line {item.row.line}" if item.row.line is not None else "")
        if item.fault is not None:
            console.print(f"{where}: would be set aside: {clean(item.fault)}", style="bold")
            continue
        console.print(f"{where}, {clean(item.place)}", style="bold")
        if console.is_terminal:
            console.print(_difference(item))
        for part in item.replacements:
            seen[part.entity] += 1
            original = item.text[part.start : part.end] if console.is_terminal else _MASK * (part.end - part.start)
            rule = f"{part.entity} {part.score:g} by {part.rule}"
            console.print(f"  {part.start}-{part.end} {clean(original)} -> {clean(part.text) or '(removed)'}  [{rule}; {part.action}: {part.clause}]")
    total = ", ".join(f"{kind} {number}" for kind, number in sorted(seen.items())) or "nothing"
    console.print(f"policy {policy.policy}: {total} would be replaced in what is shown")


def _difference(item: Shown) -> Text:
    text, end = Text(), 0
    for part in item.replacements:
        text.append(clean(item.text[end : part.start]))
        text.append(clean(item.text[part.start : part.end]), style="red strike")
        text.append(clean(part.text), style="green")
        end = part.end
    text.append(clean(item.text[end:]))
    return text


def show_policies(
    source: Annotated[Path | None, typer.Argument(metavar="[IN]", help="File on which two policies are compared.")] = None,
    *,
    diff: Annotated[tuple[str, str] | None, typer.Option("--diff", metavar="A B", help="Two policies to compare on IN.")] = None,
    field: Fields = None,
    language: Language = "auto",
    pack: PackName = None,
    encoding: Encoding = "utf-8",
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Rows that are compared.")] = 1000,
    as_json: options.Json = False,
) -> None:
    """List the policies, or say what two of them would do differently with your own data."""
    if diff is None:
        _list(as_json=as_json)
        return
    if source is None:
        raise InputError("--diff needs a file to compare on\n    -> metier data policies --diff hipaa pipl IN --field text")
    one, other = (load_policy(name) for name in diff)
    chosen = AUTO if language == "auto" else language
    found = compare_policies(source, _fields(field), (one, other), language=chosen, pack=pack, encoding=encoding, rows=rows)
    if as_json:
        typer.echo(json_line({"rows": found.rows, "policies": [one.policy, other.policy], "entities": found.entities}))
        return
    _show_difference(found, one, other)


def _list(*, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line([item.model_dump(mode="json") for item in policies().values()]))
        return
    for item in policies().values():
        names = ", ".join((item.policy, *item.aliases))
        typer.echo(f"{names:<24}{item.title.get('en', '')}: {item.basis}")
    typer.echo("your own: --policy FILE.yaml, in the form of the files in " + str(Path(privacy.__file__).parent / "data" / "policies"))


def _show_difference(found: Difference, one: Policy, other: Policy) -> None:
    console = output()
    table = Table(title=f"{found.rows} rows", title_justify="left", box=None, pad_edge=False)
    for column in ("entity", one.policy, other.policy, "", f"for instance, {one.policy}", f"for instance, {other.policy}"):
        table.add_column(column)
    for entity, sides in found.entities.items():
        cells = [", ".join(f"{action} {number}" for action, number in side["actions"].items()) or "-" for side in sides]
        table.add_row(entity, *cells, "" if cells[0] == cells[1] else "*", *(clean(side["example"] or "-") for side in sides))
    console.print(table)
    console.print("* the two differ; examples show what would stand there, originals are masked")


def guard(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files to look into.")],
    *,
    allow: Annotated[Path | None, typer.Option("--allow", metavar="FILE", help="What may stand: paths, kinds, values.", show_default=".metier-allow")] = None,
    pack: PackName = None,
    least: Annotated[float, typer.Option("--score", min=0.0, max=1.0, help="Least confidence of a rule.")] = 0.7,
    as_json: options.Json = False,
) -> None:
    """Refuse files that hold personal identifiers: exit 1, with file, line and kind, never the value. For hooks before a commit."""
    result = scan_files(files, allow=allow, pack=pack, least=least)
    if as_json:
        rows = [{"path": str(item.path), "line": item.line, "entity": item.entity, "count": item.count} for item in result.findings]
        typer.echo(json_line({"findings": rows, "files": result.files, "skipped": [str(path) for path in result.skipped]}))
    else:
        for item in result.findings:
            typer.echo(f"{clean(str(item.path))}:{item.line}: {item.entity}" + (f" ({item.count} times)" if item.count > 1 else ""))
    for path in result.skipped:
        errors().print(f"note: {clean(str(path))} is no text and was not looked into")
    if result.findings:
        errors().print("refused: replace them (metier data deidentify), or allow what may stand in .metier-allow")
        raise typer.Exit(1)
