"""Sources as one stream of records, each with its provenance, and the register of the files behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from metier.config import settings_digest
from metier.digest import digest_of
from metier.errors import Fault, SourceError, nearest
from metier.packs import Pack
from metier.records import Drop, Record, Source, identify
from metier.sources.corpora import Reading, pattern_of, reading_of
from metier.sources.documents import DOCUMENT_FIELDS
from metier.sources.files import DOCUMENTS, TABLES, File, open_file
from metier.sources.forms import Form, UnfitError, choose_form, missing_columns, to_record, used_columns
from metier.sources.locate import find
from metier.sources.missing import Missing, MissingValueError
from metier.sources.rows import Malformed, Row
from metier.sources.settings import SourceSettings

__all__ = ["SourceSet", "read"]

_NAMED = 5


class SourceSet:
    """The records of all sources, read lazily, file after file in the order of the settings and of the files' names.

    `digest` identifies settings, bytes and the pack's part in reading them. `register` has one entry a file; its counts are those of the last iteration.
    """

    def __init__(self, sources: Sequence[tuple[Reading, Sequence[File]]], tolerance: float, pack: Pack | None = None) -> None:
        self._sources = sources
        self._tolerance = tolerance
        content = [[settings_digest(reading.settings), [[item.shown, item.sha256] for item in files]] for reading, files in sources]
        corpora = pack.digest if pack and any(reading.corpus for reading, _ in sources) else None
        self.digest = digest_of({"sources": content, "tolerance": tolerance, "corpora": corpora})

    @property
    def register(self) -> list[dict[str, Any]]:
        """One entry a file: name, SHA-256, size, encoding and why, terms, rows, malformed rows, missing values by column, what was passed over."""
        return [item.entry() for _, files in self._sources for item in files]

    @property
    def bytes(self) -> int:
        """Size of all files together, for progress."""
        return sum(item.size for _, files in self._sources for item in files)

    def __iter__(self) -> Iterator[Record | Drop]:
        """Yield records, and a Drop for each malformed row. Raises SourceError when a source has too many of those."""
        for reading, files in self._sources:
            for item in files:
                item.reset()
                yield from _read_file(item)
            _judge(files, self._tolerance if reading.settings.malformed is None else reading.settings.malformed)


def read(settings: Sequence[SourceSettings], root: Path, *, tolerance: float = 0.01, pack: Pack | None = None, today: date | None = None) -> SourceSet:
    """Find, hash and decode-check the files of all sources; the records are read when the result is iterated.

    `tolerance` is the share of malformed rows up to which a source is accepted where it sets none itself; `pack` knows the corpora that sources name.
    Raises SourceError with the faults of all sources; a source whose retention ended before `today` (by default the day of the call) is one of them.
    """
    root = root.resolve()
    today = today or date.today()
    sources: list[tuple[Reading, list[File]]] = []
    faults: list[Fault] = []
    if not settings:
        faults.append(Fault("no source is named", key="sources", remedy="name at least one: - {path: data/*.jsonl, licence: internal}"))
    for place, source in enumerate(settings):
        key = f"sources[{place}]"
        if source.expired(today):
            what = f"the data may be used until {source.basis.expires}, and today is {today}"
            faults.append(Fault(what, source.path, key=f"{key}.basis.retention", remedy="delete the data and the source, or state the new date"))
            continue
        files: list[File] = []
        try:
            reading = reading_of(source, pack, key)
            paths, found = find(pattern_of(reading, root), root, f"{key}.path")
            faults += found
            for path in paths:
                try:
                    files.append(open_file(path, root, reading))
                except SourceError as error:
                    faults += error.faults
        except SourceError as error:
            faults += error.faults
            continue
        sources.append((reading, files))
    if faults:
        raise SourceError(faults)
    return SourceSet(sources, tolerance, pack)


def _read_file(item: File) -> Iterator[Record | Drop]:
    status = item.path.stat()
    if (status.st_size, status.st_mtime_ns) != (item.size, item.stamp):
        raise SourceError(Fault("the file was changed after it was hashed", item.shown, remedy="run the command again"))
    shape: _Shape | None = None
    for row in item.read():
        item.rows += 1
        if isinstance(row, Malformed):
            yield _drop(item, row)
            continue
        shape = shape or _Shape(item, row)
        try:
            record = shape.record(row)
        except UnfitError as error:
            yield _drop(item, Malformed(str(error), row.place, row.raw, row.position))
            continue
        if isinstance(record, Malformed):
            yield _drop(item, record)
            continue
        source = _source(item, row)
        yield replace(unnamed := replace(record, source=source), id=identify(unnamed))


class _Shape:
    """What the first sound row of a file decides: the form of its rows, which the register says, and the columns watched for missing values."""

    def __init__(self, item: File, row: Row) -> None:
        self._item = item
        self._settings = item.settings if item.container not in DOCUMENTS or item.reading.whole else _with_document_fields(item.settings)
        self._form = _form(item, self._settings, row)
        self._missing = Missing(item.settings.read.missing, used_columns(self._settings, self._form))
        item.missing = self._missing.found

    def record(self, row: Row) -> Record | Malformed:
        """Return the record of a row, or why it is dropped for a missing value. Raises UnfitError; SourceError for the policy `error`."""
        try:
            values, lacking = self._missing.apply(row.values)
        except MissingValueError as error:
            remedy = "fill the value in, or choose the policy keep, drop or fill"
            raise SourceError(Fault(f"the value of {error} is missing", self._item.shown, row.place, "read.missing", remedy)) from None
        if lacking is not None:
            self._item.notes["missing_value_dropped"] += 1
            return Malformed(f"missing_value:{lacking}", row.place, row.raw, row.position, counts=False)
        self._item.notes["missing_value_filled"] = self._missing.filled.total()
        return to_record(values, self._form, self._settings)


def _with_document_fields(settings: SourceSettings) -> SourceSettings:
    """Return settings under which everything that is known of a chunk becomes metadata."""
    own = {name: name for name in DOCUMENT_FIELDS if name != "text" and name not in settings.columns.values()}
    return settings.model_copy(update={"columns": {**own, **settings.columns}})


def _form(item: File, settings: SourceSettings, row: Row) -> Form:
    names = list(row.values)
    form = choose_form(settings, names)
    if form is None:
        columns = ", ".join(names[:20])
        remedy = "write columns: {prompt: ..., completion: ...}, or name the fields that templates need: {field: column}"
        raise SourceError(Fault(f"the form of the rows is not known; they have: {columns}", item.shown, row.place, "columns", remedy))
    if item.container in TABLES:
        missing = missing_columns(settings, form, names)
        missing += [(name, nearest(name, names)) for name in settings.read.missing.columns if name not in names]
        if missing:
            raise SourceError([Fault(f"there is no column {name!r}", item.shown, 1, "columns", remedy) for name, remedy in missing])
    item.form = form
    return form


def _source(item: File, row: Row | Malformed) -> Source:
    return Source(item.shown, item.sha256, item.position(row), item.settings.licence, item.settings.basis.reference)


def _drop(item: File, row: Malformed) -> Drop:
    if row.counts:
        item.malformed += 1
        if len(item.examples) < _NAMED:
            item.examples.append((None, f"{row.position}: {row.reason}") if row.position else (row.place, row.reason))
    source = _source(item, row)
    identity = digest_of([source.uri, source.position, row.raw])[:32]
    return Drop(identity, "sources", row.reason, source, row.raw)


def _judge(files: Sequence[File], tolerance: float) -> None:
    """Raise SourceError if a source has no rows, or more malformed ones than tolerated."""
    rows, malformed = sum(item.rows for item in files), sum(item.malformed for item in files)
    if not rows:
        raise SourceError([Fault("the file holds no rows", item.shown, remedy="check its content and the key `rows`") for item in files[:_NAMED]])
    if malformed > tolerance * rows:
        faults = [fault for item in files for fault in item.faults][:_NAMED]
        faults += [Fault(f"malformed row: {reason}", item.shown, line) for item in files if not item.faults for line, reason in item.examples][:_NAMED]
        share = f"{malformed} of {rows} rows of the source are malformed; {tolerance:.2%} are tolerated"
        remedy = f"mend them, or accept them with malformed: {min(1.0, round(malformed / rows + 0.005, 2))}; they are kept in the drop ledger"
        raise SourceError([*faults, Fault(share, files[0].settings.path, key="malformed", remedy=remedy)])
