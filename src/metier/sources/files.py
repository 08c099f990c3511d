"""One file of a source: what it is, how its rows are read, and what was counted in it."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from metier.errors import Fault, SourceError
from metier.sources.corpora import Reading
from metier.sources.documents import DocumentKind, divided, document_rows, read_document
from metier.sources.documents.charset import declared_inside
from metier.sources.encoding import COMPRESSED, Decision, decide, fingerprint, head
from metier.sources.excel import read_excel, sheet_notes
from metier.sources.jsonrows import read_element
from metier.sources.locate import display
from metier.sources.register import terms_entry
from metier.sources.rows import Malformed, Row, Rows, read_json, read_parquet, read_table
from metier.sources.settings import SourceSettings
from metier.sources.tagged import read_tagged
from metier.sources.wholefile import read_file
from metier.sources.xmlrows import read_xml

__all__ = ["DOCUMENTS", "TABLES", "File", "open_file"]

TABLES = ("csv", "tsv", "excel", "parquet")
"""Kinds of files whose rows all have the same columns."""
DOCUMENTS = ("text", "markdown", "html", "pdf", "docx", "xml-prose")
"""Kinds of files that are cut into chunks."""
_BINARY = ("parquet", "excel", "pdf", "docx")
_DECLARED = ("csv", "tsv", "excel", "parquet", "xml", "conll", *DOCUMENTS)
_SUFFIXES = {
    **{".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".xlsx": "excel", ".xlsm": "excel", ".parquet": "parquet"},
    **{".xml": "xml", ".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".xhtml": "html"},
    **{".pdf": "pdf", ".docx": "docx", ".conll": "conll", ".bio": "conll", ".iob": "conll"},
}


@dataclass(slots=True)
class File:
    """One file of a source: where it is, what it is and what has been counted in it."""

    path: Path
    shown: str
    container: str
    reading: Reading
    sha256: str
    size: int
    stamp: int
    decision: Decision | None
    form: str = ""
    rows: int = 0
    malformed: int = 0
    examples: list[tuple[int | None, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> SourceSettings:
        """What the project and the corpus say of the source."""
        return self.reading.settings

    def reset(self) -> None:
        """Forget what was counted."""
        self.rows, self.malformed, self.missing = 0, 0, {}
        for counted in (self.examples, self.faults, self.notes):
            counted.clear()

    def entry(self) -> dict[str, Any]:
        """Return the file's entry in the register."""
        corpus = self.reading.corpus
        return {
            "uri": self.shown,
            "sha256": self.sha256,
            "bytes": self.size,
            "format": f"{self.container}, {self.form or self.settings.format}",
            "encoding": self.decision.encoding if self.decision else None,
            "encoding_reason": self.decision.reason if self.decision else None,
            "licence": self.settings.licence,
            "basis": self.settings.basis.reference or None,
            "corpus": None
            if corpus is None
            else {"name": corpus.name, "citation": corpus.about.citation, "url": corpus.about.url, "access": corpus.about.access},
            **terms_entry(self.settings),
            "templates": list(self.settings.templates),
            "rows": self.rows,
            "malformed": self.malformed,
            "missing": dict(sorted(self.missing.items())),
            "notes": {name: count for name, count in sorted(self.notes.items()) if count},
        }

    def read(self) -> Rows:
        """Yield the file's rows. A document that cannot be read is one malformed row; its fault is kept."""
        if self.container in DOCUMENTS and not self.reading.whole:
            yield from self._document()
            return
        for row in self._plain_rows():
            yield from self._taken_apart(row) if isinstance(row, Row) else [row]

    def _document(self) -> Rows:
        encoding = self.decision.encoding if self.decision else "utf-8"
        try:
            document = read_document(self.path, self.shown, cast("DocumentKind", self.container), encoding)
        except SourceError as error:
            self.faults += error.faults
            yield Malformed("unreadable_document", 1, "", "document")
            return
        self.notes.update(document.counts)
        self.notes.update(item.reason for item in document.left_out)
        self.notes.update(reason for _, reason in document.unread)
        settings = self.settings.read.chunk
        for row in document_rows(document, settings, uri=self.shown, digest=self.sha256):
            self.notes["longer_than_a_chunk"] += isinstance(row, Row) and settings.by != "none" and len(row.values["text"]) > settings.characters
            yield row

    def _plain_rows(self) -> Rows:
        encoding = self.decision.encoding if self.decision else "utf-8"
        rows = self.settings.rows
        if self.reading.whole:
            return read_file(self.path, self.shown, encoding)
        if self.container == "parquet":
            return read_parquet(self.path, self.shown)
        if self.container == "excel":
            return self._sheets()
        if self.container == "json":
            return read_element(self.path, self.shown, encoding, rows, self._outer()) if rows else read_json(self.path, self.shown, encoding)
        if self.container == "conll":
            return read_tagged(self.path, encoding)
        if self.container == "xml":
            return read_xml(self.path, self.shown, encoding, rows or "", self._outer())
        return read_table(self.path, self.shown, encoding, "," if self.container == "csv" else "\t")

    def _outer(self) -> list[str]:
        named = [*self.settings.columns.values(), self.settings.subject, self.settings.group, self.settings.time]
        return [name for name in named if name and name.startswith("/")]

    def _sheets(self) -> Rows:
        counts: dict[str, int] = {}
        yield from read_excel(self.path, self.shown, self.settings.read, counts)
        self.notes.update(sheet_notes(counts))

    def _taken_apart(self, row: Row) -> Rows:
        """Yield what the corpus's own function makes of a row, cut into chunks where the corpus says so."""
        reader, divide = self.reading.reader, self.reading.corpus is not None and self.reading.corpus.divide
        place = self.position(row)
        rows: Iterable[Row] = [row]
        if reader is not None:
            try:
                found = list(reader(row.values))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                yield Malformed(f"not_of_the_corpus:{type(error).__name__}", row.place, row.raw, place)
                return
            if not found:
                yield Malformed("left_out_by_corpus", row.place, row.raw, place, counts=False)
                return
            rows = _numbered(found, row, place)
        for item in rows:
            yield from divided(item, self.settings.read.chunk, self.position(item)) if divide else [item]

    def position(self, row: Row | Malformed) -> str:
        """Return a row's place in words."""
        return row.position or f"{'row' if self.container == 'parquet' else 'line'} {row.place}"


def _numbered(found: list[Mapping[str, Any]], row: Row, place: str) -> Iterator[Row]:
    for number, values in enumerate(found, 1):
        yield Row(dict(values), row.place, row.raw if len(found) == 1 else "", f"{place}, part {number}" if len(found) > 1 else place)


def _container(path: Path, reading: Reading, shown: str) -> str:
    settings = reading.settings
    if settings.format in _DECLARED:
        return settings.format
    if reading.container:
        return reading.container
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    if suffix.lower() not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        remedy = f"name it {known}, or write format: {', '.join(_DECLARED)}"
        raise SourceError(Fault(f"the suffix {suffix!r} says nothing of the format", shown, key="format", remedy=remedy))
    return _SUFFIXES[suffix.lower()]


def open_file(path: Path, root: Path, reading: Reading) -> File:
    """Return a file that is hashed and whose encoding is decided. Raises SourceError for what cannot be read, is empty or has no known kind."""
    shown = display(path, root)
    container = _container(path, reading, shown)
    settings = reading.settings
    if container == "xml" and not settings.rows:
        remedy = "for instance rows: QAPair; to read it as text write format: xml-prose"
        raise SourceError(Fault("XML needs the name of the element that is one row", shown, key="rows", remedy=remedy))
    if settings.rows and container not in ("xml", "json"):
        remedy = "leave the key out; only the rows of XML and JSON files lie inside other parts"
        raise SourceError(Fault(f"files of the kind {container!r} have no parts that rows could lie in", shown, key="rows", remedy=remedy))
    if container in _BINARY and path.suffix in COMPRESSED:
        raise SourceError(Fault(f"a compressed {container} file", shown, remedy="unpack it; only text files are read compressed"))
    try:
        stamp = path.stat().st_mtime_ns
        sha256, size = fingerprint(path)
    except OSError as error:
        raise SourceError(Fault(f"cannot be read: {error.strerror or error}", shown, remedy="check the file's permissions")) from None
    if not size:
        raise SourceError(Fault("the file is empty", shown, remedy="remove it, or leave it out of the pattern"))
    decision = None if container in _BINARY else decide(path, shown, _encoding(path, container, settings))
    return File(path, shown, container, reading, sha256, size, stamp, decision)


def _encoding(path: Path, container: str, settings: SourceSettings) -> str:
    if settings.encoding != "auto" or container not in ("html", "xml-prose"):
        return settings.encoding
    try:
        return declared_inside(head(path)) or "auto"
    except (OSError, EOFError, gzip.BadGzipFile, zlib.error):
        return "auto"
