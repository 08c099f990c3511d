"""De-identifies a file of rows (JSONL, CSV, TSV, Parquet) outside any project: resumable, atomic, and closed where something fails."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from metier.digest import digest_file, digest_of
from metier.engines import LOCAL, Engine
from metier.errors import Fault, InputError, PrivacyError, nearest
from metier.prepare.rowfiles import Row, RowFile, form_of, write_rows
from metier.prepare.rowtexts import paths, texts, with_texts
from metier.privacy.keyed import Surrogates
from metier.privacy.names import read_ahead, taggers_for
from metier.privacy.once import AUTO, language_of, rules_for_policy
from metier.privacy.policy import Policy
from metier.privacy.replace import Deidentified, Replacement, deidentify_texts
from metier.privacy.vault import SubjectTokens, opened_vault
from metier.progress import SILENT, Progress
from metier.store import remove_folder, write_atomically

__all__ = ["SPANS", "FileJob", "FileReport", "Shown", "deidentify_file", "peek"]

CHUNK = 256
_KEY_BYTES = 32
SPANS = "spans"
"""Name of the added column with what was replaced."""
_TASK = "deidentify"
_NAMED = 5
_LOOKED_AT = 200
"""Rows at the beginning in which the named fields have to occur."""


@dataclass(frozen=True, slots=True)
class FileJob:
    """What is to be done with a file. `key` makes the surrogates (empty: one of this job only); `vault` is a folder and its master key's file."""

    source: Path
    fields: tuple[str, ...]
    policy: Policy
    key: bytes = field(repr=False)
    language: str | None = AUTO
    pack: str | None = None
    subject: str | None = None
    encoding: str = "utf-8"
    spans: bool = False
    vault: tuple[Path, Path] | None = None
    sweep: bool = True


@dataclass(frozen=True, slots=True)
class FileReport:
    """What was done, in counts; no text of a row is in it."""

    rows: int
    written: int
    quarantined: int
    replaced: dict[str, int]
    """Entity -> number of replacements."""
    actions: dict[str, int]
    untouched: tuple[str, ...]
    """Fields that nobody looked at."""
    still_in: dict[str, int]
    """Those of them in which values stand that were replaced elsewhere in the row, with the number of rows."""
    status: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One text of a row and what would be replaced in it; `fault` where the row would be set aside."""

    row: Row
    place: str
    text: str
    replacements: tuple[Replacement, ...] = ()
    fault: str | None = None


def deidentify_file(job: FileJob, out: Path, *, engine: Engine = LOCAL, progress: Progress = SILENT) -> FileReport:
    """Write the de-identified rows to `out`, and those that failed, by number and reason, to `out` + ``.quarantine.jsonl``.

    Finished chunks are kept beside `out` until all is done, so an interrupted run goes on where it was; they hold no original.
    `out` appears when it is complete. Raises InputError for fields that no row has, PrivacyError for a vault that does not open.
    """
    source = RowFile(job.source, encoding=job.encoding)
    _check(job, source, out)
    work = out.with_name(f".{out.name}.work")
    job = _open_work(work, job, out)
    progress.start(_TASK, source.about(), "rows")
    chunks: list[Path] = []
    waiting: list[Path] = []

    def pending() -> Iterator[list[Row]]:
        rows = source.rows()
        while chunk := list(islice(rows, CHUNK)):
            path = work / f"{len(chunks):08d}.json"
            chunks.append(path)
            if path.exists():
                progress.advance(_TASK, len(chunk))
                continue
            waiting.append(path)
            yield chunk

    for done in engine.map(partial(_chunk, job), pending()):
        write_atomically(waiting.pop(0), json.dumps(done, ensure_ascii=False).encode(), mode=0o600)
        progress.advance(_TASK, len(done))
    report = _assemble(job, source, chunks, out)
    remove_folder(work)
    progress.finish(_TASK, f"{report.quarantined} set aside" if report.quarantined else "")
    return report


def quarantine_of(out: Path) -> Path:
    """Return where the rows that were set aside are listed."""
    return out.with_name(f"{out.name}.quarantine.jsonl")


def peek(job: FileJob, *, count: int, rows: int = 1000) -> Iterator[Shown]:
    """Yield up to `count` texts among the first `rows` in which something would be replaced, or that would be set aside."""
    source = RowFile(job.source, encoding=job.encoding)
    _check_fields(job, source)
    shown = 0
    for row in islice(source.rows(), rows):
        if row.values is None:
            continue
        found = texts(row.values, job.fields)
        try:
            made = _replace(job, [text for _, text in found], _subject(row.values, job.subject), tokens=None)
        except Exception as error:  # noqa: BLE001 - what would be set aside is shown as that
            yield Shown(row, "", "", fault=_reason(error))
            continue
        for (place, text), replacements in zip(found, made.replacements, strict=True):
            if replacements:
                yield Shown(row, place, text, replacements)
                shown += 1
            if shown == count:
                return


def _check(job: FileJob, source: RowFile, out: Path) -> None:
    if form_of(out) != source.form:
        raise InputError(Fault(f"is to be written as {form_of(out)}, but the rows are {source.form}", out, remedy=f"name it {out.stem}{job.source.suffix}"))
    if out.exists() and out.samefile(job.source):
        raise InputError(Fault("this is the source itself", out, remedy="name another file"))
    if not out.parent.is_dir():
        raise InputError(Fault("there is no such folder", out.parent, remedy="make it first"))
    _check_fields(job, source)
    if job.vault is not None:
        opened_vault(*job.vault)


def _check_fields(job: FileJob, source: RowFile) -> None:
    # A pack that is not there is a fault of the command, not of every row.
    rules_for_policy(job.pack, job.policy)
    names: set[str] = set()
    columns: dict[str, None] = {}
    wanted = (*job.fields, *([job.subject] if job.subject else []))
    broken: list[Fault] = []
    for row in islice(source.rows(), _LOOKED_AT):
        if row.values is None:
            broken.append(Fault(f"cannot be read: {row.fault}", job.source, row.line, remedy="mend it; for another encoding write --encoding gb18030"))
        else:
            names |= paths(row.values, wanted)
            columns |= dict.fromkeys(row.values)
    if not columns:
        raise InputError(broken[:_NAMED] or [Fault("the file holds no rows", job.source, remedy="check the file")])
    faults = [Fault(f"no row has the field {name!r}", job.source, remedy=nearest(name, list(columns))) for name in wanted if name not in names]
    if job.spans and SPANS in columns:
        faults.append(Fault(f"the rows have a field {SPANS!r} already", job.source, key="--spans", remedy="rename it in the source"))
    if faults:
        raise InputError(faults)


def _open_work(work: Path, job: FileJob, out: Path) -> FileJob:
    """Begin the folder of finished chunks, or go on with it if it is that of the very same job; return the job with its key."""
    facts = {
        "source": digest_file(job.source),
        "out": out.name,
        "fields": list(job.fields),
        "policy": job.policy.model_dump(mode="json"),
        "key": hashlib.sha256(b"resume\0" + job.key).hexdigest()[:16],
        "rest": [job.language, job.pack, job.subject, job.encoding, job.spans, str(job.vault), job.sweep],
    }
    mark, own = work / "job", work / "key"
    if not (mark.exists() and mark.read_text() == digest_of(facts)):
        remove_folder(work)
        work.mkdir(mode=0o700)
        if not job.key:
            write_atomically(own, os.urandom(_KEY_BYTES), mode=0o600)
        write_atomically(mark, digest_of(facts).encode())
    return job if job.key else replace(job, key=own.read_bytes())


def _chunk(job: FileJob, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return for each row its new texts and what was replaced, or why it is set aside; originals go to the vault and nowhere else."""
    vault = None if job.vault is None else opened_vault(*job.vault)
    done: list[dict[str, Any]] = []
    kept: dict[str | None, list[tuple[str, str, str]]] = {}
    _read_together(job, rows)
    for row in rows:
        if row.values is None:
            done.append({"step": "read", "reason": "malformed", "detail": row.fault})
            continue
        tokens = None if vault is None else SubjectTokens(vault)
        try:
            found = texts(row.values, job.fields)
            subject = _subject(row.values, job.subject)
            made = _replace(job, [text for _, text in found], subject, tokens=tokens)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the row is set aside, and its text is neither kept nor shown
            done.append({"step": "deidentify", "reason": f"deidentify_failed:{type(error).__name__}", "detail": _reason(error)})
            continue
        if tokens is not None:
            kept.setdefault(subject, []).extend(tokens.entries)
        spans = [{"field": place, **asdict(item)} for (place, _), items in zip(found, made.replacements, strict=True) for item in items]
        done.append({"texts": list(made.texts), "spans": spans, "elsewhere": _elsewhere(job, row.values, made)})
    if vault is not None:
        vault.keep_all(kept)
    return done


def _elsewhere(job: FileJob, values: Mapping[str, Any], made: Deidentified) -> list[str]:
    """Return the fields that nobody looked at and in which a value stands that was replaced in the others."""
    looked = {name.partition(".")[0] for name in job.fields}
    originals = {span.text for spans in made.spans for span in spans if len(span.text) >= (2 if span.type == "PERSON" else 5)}
    rest = {name: "\n".join(text for _, text in texts({name: value}, (name,))) for name, value in values.items() if name not in looked}
    return [name for name, text in rest.items() if any(original in text for original in originals)]


def _reason(error: Exception) -> str:
    # Only errors of our own are known to hold no text of the row.
    return str(error).partition("\n")[0] if isinstance(error, PrivacyError) else type(error).__name__


def _subject(values: Mapping[str, Any], name: str | None) -> str | None:
    if name is None:
        return None
    found = texts(dict(values), (name,))
    return found[0][1] if found else None


def _replace(job: FileJob, found: Sequence[str], subject: str | None, *, tokens: SubjectTokens | None) -> Deidentified:
    identifiers, validators = rules_for_policy(job.pack, job.policy)
    language = _language(job, found)
    return deidentify_texts(
        found,
        identifiers=identifiers,
        validators=validators,
        language=language,
        surrogates=Surrogates(job.key),
        subject=subject,
        policy=job.policy,
        taggers=taggers_for(language),
        tokens=tokens,
        independent=job.sweep,
    )


def _language(job: FileJob, found: Sequence[str]) -> str | None:
    return language_of("\n".join(found)) if job.language == AUTO else job.language


def _read_together(job: FileJob, rows: Sequence[Row]) -> None:
    """Have the name taggers read the texts of a chunk at once. What goes wrong here goes wrong again at the one row that causes it."""
    together: dict[str | None, list[str]] = defaultdict(list)
    with suppress(Exception):
        for row in rows:
            if row.values is not None:
                found = [text for _, text in texts(row.values, job.fields)]
                together[_language(job, found)] += found
        for language, found in together.items():
            read_ahead(taggers_for(language), found)


def _assemble(job: FileJob, source: RowFile, chunks: Sequence[Path], out: Path) -> FileReport:
    """Put the new texts into the rows and write them aside; then give both files their names, the rows last."""
    replaced: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    still: Counter[str] = Counter()
    aside: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    written = 0

    def whole() -> Iterator[dict[str, Any]]:
        nonlocal written
        for row, done in zip(source.rows(), _finished(chunks), strict=True):
            if "texts" not in done or row.values is None:
                aside.append({"row": row.number, "line": row.line, **done})
                continue
            columns.update(dict.fromkeys(row.values))
            replaced.update(span["entity"] for span in done["spans"])
            actions.update(span["action"] for span in done["spans"])
            still.update(done["elsewhere"])
            written += 1
            new = with_texts(row.values, job.fields, done["texts"])
            yield {**new, SPANS: done["spans"]} if job.spans else new

    temporary = out.with_name(f".{out.name}.part")
    try:
        tops = [name.partition(".")[0] for name in job.fields]
        write_rows(temporary, whole(), like=source, text_columns=tops, added=SPANS if job.spans else None)
        listed = quarantine_of(out)
        if aside:
            write_atomically(listed, b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in aside))
        else:
            listed.unlink(missing_ok=True)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    looked = {name.partition(".")[0] for name in job.fields}
    kept = "the vault keeps a way back" if job.vault is not None else "while its key exists"
    return FileReport(
        rows=written + len(aside),
        written=written,
        quarantined=len(aside),
        replaced=dict(sorted(replaced.items())),
        actions=dict(sorted(actions.items())),
        untouched=tuple(name for name in columns if name not in looked),
        still_in=dict(sorted(still.items())),
        status=f"pseudonymised, not anonymous: {kept} (PIPL 73, GDPR 4(5))",
    )


def _finished(chunks: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in chunks:
        yield from json.loads(path.read_bytes())
