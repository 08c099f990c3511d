"""Sources as one stream of records, each with its provenance, and the register of the files behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metier.config import settings_digest
from metier.digest import digest_of
from metier.errors import Fault, SourceError
from metier.records import Drop, Record, Source, identify
from metier.sources.encoding import Decision, decide, fingerprint
from metier.sources.forms import Form, UnfitError, choose_form, missing_columns, to_record
from metier.sources.locate import display, find
from metier.sources.rows import Malformed, Row, Rows, read_json, read_parquet, read_table
from metier.sources.settings import SourceSettings
from metier.sources.xmlrows import read_xml

__all__ = ["SourceSet", "read"]

_SUFFIXES = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".xml": "xml"}
_TABLES = ("csv", "tsv", "parquet")
_NAMED = 5


@dataclass(slots=True)
class _File:
    """One file of a source: where it is, what it is and what has been counted in it."""

    path: Path
    shown: str
    container: str
    settings: SourceSettings
    sha256: str
    size: int
    stamp: int
    decision: Decision | None
    form: str = ""
    rows: int = 0
    malformed: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)

    def entry(self) -> dict[str, Any]:
        """Return the file's entry in the register."""
        return {
            "uri": self.shown,
            "sha256": self.sha256,
            "bytes": self.size,
            "format": f"{self.container}, {self.form or self.settings.format}",
            "encoding": self.decision.encoding if self.decision else None,
            "encoding_reason": self.decision.reason if self.decision else None,
            "licence": self.settings.licence,
            "basis": self.settings.basis or None,
            "templates": list(self.settings.templates),
            "rows": self.rows,
            "malformed": self.malformed,
        }


class SourceSet:
    """The records of all sources, read lazily, file after file in the order of the settings and of the files' names.

    `digest` identifies settings and bytes. `register` has one entry a file; its counts are those of the last iteration.
    """

    def __init__(self, sources: Sequence[tuple[SourceSettings, Sequence[_File]]], tolerance: float) -> None:
        self._sources = sources
        self._tolerance = tolerance
        content = [[settings_digest(settings), [[item.shown, item.sha256] for item in files]] for settings, files in sources]
        self.digest = digest_of({"sources": content, "tolerance": tolerance})

    @property
    def register(self) -> list[dict[str, Any]]:
        """One entry a file: name, SHA-256, size, encoding used and why, licence, basis, rows, malformed rows."""
        return [item.entry() for _, files in self._sources for item in files]

    @property
    def bytes(self) -> int:
        """Size of all files together, for progress."""
        return sum(item.size for _, files in self._sources for item in files)

    def __iter__(self) -> Iterator[Record | Drop]:
        """Yield records, and a Drop for each malformed row. Raises SourceError when a source has too many of those."""
        for settings, files in self._sources:
            for item in files:
                item.rows, item.malformed = 0, 0
                item.examples.clear()
                yield from _read_file(item)
            _judge(files, self._tolerance if settings.malformed is None else settings.malformed)


def read(settings: Sequence[SourceSettings], root: Path, *, tolerance: float = 0.01) -> SourceSet:
    """Find, hash and decode-check the files of all sources; the records are read when the result is iterated.

    `tolerance` is the share of malformed rows up to which a source is accepted where it sets none itself.
    Raises SourceError with the faults of all sources.
    """
    root = root.resolve()
    sources: list[tuple[SourceSettings, list[_File]]] = []
    faults: list[Fault] = []
    if not settings:
        faults.append(Fault("no source is named", key="sources", remedy="name at least one: - {path: data/*.jsonl, licence: internal}"))
    for place, source in enumerate(settings):
        paths, found = find(source.path, root, f"sources[{place}].path")
        faults += found
        files = []
        for path in paths:
            try:
                files.append(_open(path, root, source))
            except SourceError as error:
                faults += error.faults
        sources.append((source, files))
    if faults:
        raise SourceError(faults)
    return SourceSet(sources, tolerance)


def _container(path: Path, settings: SourceSettings, shown: str) -> str:
    if settings.format in ("csv", "tsv", "parquet", "xml"):
        return settings.format
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise SourceError(
            Fault(
                f"the suffix {suffix!r} says nothing of the format", shown, key="format", remedy=f"name it {known}, or write format: csv, tsv, parquet or xml"
            )
        )
    return _SUFFIXES[suffix.lower()]


def _open(path: Path, root: Path, settings: SourceSettings) -> _File:
    shown = display(path, root)
    container = _container(path, settings, shown)
    if container == "xml" and not settings.rows:
        raise SourceError(Fault("XML needs the name of the element that is one row", shown, key="rows", remedy="for instance rows: QAPair"))
    try:
        stamp = path.stat().st_mtime_ns
        sha256, size = fingerprint(path)
    except OSError as error:
        raise SourceError(Fault(f"cannot be read: {error.strerror or error}", shown, remedy="check the file's permissions")) from None
    if not size:
        raise SourceError(Fault("the file is empty", shown, remedy="remove it, or leave it out of the pattern"))
    decision = None if container == "parquet" else decide(path, shown, settings.encoding)
    return _File(path, shown, container, settings, sha256, size, stamp, decision)


def _rows(item: _File) -> Rows:
    if item.container == "parquet":
        return read_parquet(item.path, item.shown)
    encoding = item.decision.encoding if item.decision else "utf-8"
    if item.container == "json":
        return read_json(item.path, item.shown, encoding)
    if item.container == "xml":
        return read_xml(item.path, item.shown, encoding, item.settings.rows or "")
    return read_table(item.path, item.shown, encoding, "," if item.container == "csv" else "\t")


def _read_file(item: _File) -> Iterator[Record | Drop]:
    status = item.path.stat()
    if (status.st_size, status.st_mtime_ns) != (item.size, item.stamp):
        raise SourceError(Fault("the file was changed after it was hashed", item.shown, remedy="run the command again"))
    form: Form | None = None
    for row in _rows(item):
        item.rows += 1
        if isinstance(row, Row):
            if form is None:
                form = _form(item, row)
            try:
                record = to_record(row.values, form, item.settings)
            except UnfitError as error:
                yield _drop(item, Malformed(str(error), row.place, row.raw))
                continue
            source = _source(item, row.place)
            yield replace(unnamed := replace(record, source=source), id=identify(unnamed))
        else:
            yield _drop(item, row)


def _form(item: _File, row: Row) -> Form:
    """Decide the form of a file by its first sound row and say it in the register."""
    names = list(row.values)
    form = choose_form(item.settings, names)
    if form is None:
        columns = ", ".join(names[:20])
        remedy = "write columns: {prompt: ..., completion: ...}, or name the fields that templates need: {field: column}"
        raise SourceError(Fault(f"the form of the rows is not known; they have: {columns}", item.shown, row.place, "columns", remedy))
    if item.container in _TABLES:
        missing = missing_columns(item.settings, form, names)
        if missing:
            raise SourceError([Fault(f"there is no column {name!r}", item.shown, 1, "columns", remedy) for name, remedy in missing])
    item.form = form
    return form


def _source(item: _File, place: int) -> Source:
    position = f"row {place}" if item.container == "parquet" else f"line {place}"
    return Source(item.shown, item.sha256, position, item.settings.licence, item.settings.basis)


def _drop(item: _File, row: Malformed) -> Drop:
    item.malformed += 1
    if len(item.examples) < _NAMED:
        item.examples.append((row.place, row.reason))
    source = _source(item, row.place)
    identity = digest_of([source.uri, source.position, row.raw])[:32]
    return Drop(identity, "sources", row.reason, source, row.raw)


def _judge(files: Sequence[_File], tolerance: float) -> None:
    """Raise SourceError if a source has no rows, or more malformed ones than tolerated."""
    rows, malformed = sum(item.rows for item in files), sum(item.malformed for item in files)
    if not rows:
        raise SourceError([Fault("the file holds no rows", item.shown, remedy="check its content and the key `rows` (XML)") for item in files[:_NAMED]])
    if malformed > tolerance * rows:
        faults = [Fault(f"malformed row: {reason}", item.shown, line) for item in files for line, reason in item.examples][:_NAMED]
        share = f"{malformed} of {rows} rows of the source are malformed; {tolerance:.2%} are tolerated"
        remedy = f"mend them, or accept them with malformed: {min(1.0, round(malformed / rows + 0.005, 2))}; they are kept in the drop ledger"
        raise SourceError([*faults, Fault(share, files[0].settings.path, key="malformed", remedy=remedy)])
