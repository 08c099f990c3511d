"""Files that records are added from: questions of other fields and the knowledge base. They stand in the register of sources as any other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from metier.config import Settings
from metier.digest import digest_bytes, digest_file
from metier.errors import Fault, InputError
from metier.prepare.language import detect
from metier.records import Message, Record, Source, identify

__all__ = ["ElsewhereSettings", "entries", "questions"]


class ElsewhereSettings(Settings):
    """Questions of other fields, which the expert is to refuse."""

    path: str
    """A UTF-8 text file of the project with one question a line."""
    licence: str = Field(min_length=1)
    """Terms of use of the questions."""
    basis: str | None = None
    """On what ground they may be used, if the licence does not say."""


def questions(settings: ElsewhereSettings, root: Path) -> Iterator[Record]:
    """Yield each question as a record with its line as its source. Raises InputError for a file that is not UTF-8 or holds none."""
    path = root / settings.path
    if not path.is_file():
        raise InputError(Fault("there is no such file", path, key="prepare.augment.elsewhere", remedy="name a text file of the project"))
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(Fault(f"not UTF-8 (byte {error.start})", path, key="prepare.augment.elsewhere", remedy="save the file as UTF-8")) from None
    if not any(line.strip() for line in lines):
        raise InputError(Fault("there is no question in it", path, key="prepare.augment.elsewhere", remedy="write one question a line"))
    digest = digest_bytes(data)
    for number, line in enumerate(lines, 1):
        if question := line.strip():
            source = Source(settings.path, digest, f"line {number}", settings.licence, settings.basis or "")
            record = Record(id="", messages=(Message("user", question),), language=detect(question), source=source)
            yield Record(id=identify(record), messages=record.messages, language=record.language, source=source)


def entries(used: Iterable[Source], root: Path, register: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the register's entry of each file that is used and does not stand in the `register` yet; `rows` are its lines or passages in use."""
    known = {(entry["uri"], entry["sha256"]) for entry in register}
    counts = Counter(replace(source, position="") for source in dict.fromkeys(used))
    for source, rows in sorted(counts.items(), key=lambda item: item[0].uri):
        if (source.uri, source.digest) in known:
            continue
        path = root / source.uri
        if digest_file(path) != source.digest:
            raise InputError(Fault("was changed while the dataset was made", path, remedy="run the same command again"))
        yield {
            "uri": source.uri,
            "sha256": source.digest,
            "bytes": path.stat().st_size,
            "format": "plain, text",
            "encoding": "utf-8",
            "encoding_reason": "required",
            "licence": source.licence,
            "basis": source.basis or None,
            "corpus": None,
            "licence_kind": None,
            **dict.fromkeys(("owner", "purpose", "collected", "retention", "expires", "sensitive")),
            "warnings": [],
            "templates": [],
            "rows": rows,
            "malformed": 0,
            "missing": {},
            "notes": {},
        }
