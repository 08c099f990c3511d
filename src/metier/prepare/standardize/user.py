"""Lexicons of the user: CSV or YAML, read whole, every fault with file and line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metier.errors import Fault, InputError, nearest
from metier.packs.loader import read_list
from metier.packs.spec import Term
from metier.prepare.standardize.lexicon import fold

__all__ = ["read_lexicons"]

_COLUMNS = ("code", "system", "language", "preferred", "variants")
_NEEDED = ("code", "preferred")


@dataclass(frozen=True, slots=True)
class _Entry:
    term: Term
    path: Path
    line: int | None


def read_lexicons(paths: Sequence[Path]) -> tuple[Term, ...]:
    """Return the terms of all lexicon files.

    CSV has the columns code and preferred, and may have system, language (default: by the letters of the term) and variants,
    separated by `|`; rows with one code give that code's term in several languages. YAML is a mapping with the list `lexicon`, as in
    a pack. Raises InputError with every fault of every file: what cannot be read, a name of two codes, names that send to
    each other in a circle.
    """
    faults: list[Fault] = []
    entries = [entry for path in paths for entry in _read(path, faults)]
    faults += _conflicts(entries)
    if faults:
        raise InputError(faults)
    return tuple(entry.term for entry in entries)


def _read(path: Path, faults: list[Fault]) -> list[_Entry]:
    if path.suffix.lower() in {".yaml", ".yml"}:
        if not path.is_file():
            faults.append(Fault("there is no such lexicon", path, key="lexicons", remedy="check the path"))
            return []
        document, items, found = read_list(path, "lexicon", Term)
        faults += found
        return [_Entry(term, path, document.line(("lexicon", index))) for index, term in items]
    if path.suffix.lower() not in {".csv", ".tsv"}:
        faults.append(Fault("a lexicon is a .csv, .tsv or .yaml file", path, key="lexicons", remedy="export it as CSV in UTF-8"))
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(Fault(f"not UTF-8 (byte {error.start})", path, remedy="save the file as UTF-8"))
        return []
    except OSError as error:
        faults.append(Fault(f"cannot be read: {error.strerror}", path, key="lexicons", remedy="check the path"))
        return []
    return list(_rows(path, text, faults))


def _rows(path: Path, text: str, faults: list[Fault]) -> Iterator[_Entry]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    columns = list(reader.fieldnames or [])
    unknown = [Fault(f"there is no column {name!r} in a lexicon", path, 1, remedy=nearest(name, _COLUMNS)) for name in columns if name not in _COLUMNS]
    missing = [Fault(f"the column {name!r} is missing", path, 1, remedy=f"the columns are: {', '.join(_COLUMNS)}") for name in _NEEDED if name not in columns]
    if unknown or missing:
        faults += [*unknown, *missing]
        return
    merged: dict[tuple[str, str], tuple[Term, int]] = {}
    for row in reader:
        line = reader.line_num
        values = {name: (value or "").strip() for name, value in row.items() if name is not None}
        empty = [name for name in _NEEDED if not values[name]]
        if empty or None in row:
            what = f"the row has no {' and no '.join(empty)}" if empty else "the row has more fields than the header"
            faults.append(Fault(what, path, line, remedy="quote a field that holds a comma" if not empty else None))
            continue
        language = values.get("language") or ("zh" if any("\u3400" <= letter <= "\u9fff" for letter in values["preferred"]) else "en")
        key = (values.get("system") or path.stem, values["code"])
        variants = tuple(part.strip() for part in values.get("variants", "").split("|") if part.strip())
        known, first = merged.get(key, (None, line))
        if known is not None and language in known.preferred:
            remedy = "keep one, or give the row's term as a variant"
            faults.append(Fault(f"the code {key[1]!r} has a preferred term in {language!r} already (line {first})", path, line, remedy=remedy))
            continue
        preferred = {**(known.preferred if known else {}), language: values["preferred"]}
        both = (*(known.variants if known else ()), *variants)
        merged[key] = (Term(code=key[1], system=key[0], preferred=preferred, variants=both), first)
    yield from (_Entry(term, path, line) for term, line in merged.values())


def _conflicts(entries: Sequence[_Entry]) -> Iterator[Fault]:
    """Yield names that belong to two codes; where their terms send to each other, the circle is said."""
    owners: dict[str, _Entry] = {}
    for entry in entries:
        for name in dict.fromkeys(map(fold, (*entry.term.preferred.values(), *entry.term.variants))):
            other = owners.setdefault(name, entry)
            if other is entry:
                continue
            place = f"{other.path.name}:{other.line}" if other.line else other.path.name
            if _sends(entry, other) and _sends(other, entry):
                what = f"{entry.term.code} and {other.term.code} ({place}) send to each other in a circle by the name {name!r}"
            else:
                what = f"the name {name!r} belongs to {other.term.code} ({place}) and to {entry.term.code}"
            yield Fault(what, entry.path, entry.line, remedy="a name has one code: remove it from one of the two")


def _sends(entry: _Entry, other: _Entry) -> bool:
    """Return whether a variant of `entry` is the preferred term of `other`."""
    return bool({fold(name) for name in entry.term.variants} & {fold(name) for name in other.term.preferred.values()})
