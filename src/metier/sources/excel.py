"""Excel workbooks (.xlsx) as rows: values as the workbook last showed them, dates as ISO 8601, merged cells in every row they cover."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from xml.parsers import expat

from metier.errors import Fault, MissingExtra, SourceError, nearest
from metier.sources.documents.limits import DAMAGE, check_archive
from metier.sources.rows import Malformed, Row, Rows
from metier.sources.settings import ReadSettings

__all__ = ["read_excel", "sheet_notes"]

_PLACE = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_BROKEN = "open it in a spreadsheet program and save it again; is it cut off?"


@dataclass(slots=True)
class _Marks:
    """What the streamed values of a sheet do not say: merged ranges, hidden rows and columns, formulas that were never calculated, errors."""

    merged: list[tuple[int, int, int, int]] = field(default_factory=list)
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: int = 0
    uncalculated: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


def read_excel(path: Path, shown: str, settings: ReadSettings, counts: dict[str, int]) -> Rows:
    """Yield the rows of the sheets that the settings name; `counts` is filled with what was decided about merged and hidden cells.

    Malformed rows: a formula without a stored value, an error value, a value in a column without a name, and hidden rows under `hidden: drop`.
    Raises SourceError for a file that is no workbook, a sheet that is not there, and several sheets of which none is named.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise MissingExtra("openpyxl", "documents", "reading Excel files") from None
    check_archive(path, shown)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    except (InvalidFileException, *DAMAGE) as error:
        raise SourceError(Fault(f"not a readable workbook ({type(error).__name__})", shown, remedy=_BROKEN)) from None
    try:
        for sheet in _chosen(book, settings.sheets, shown):
            marks = _marks(path, sheet, shown)
            counts["merged_ranges"] = counts.get("merged_ranges", 0) + len(marks.merged)
            counts["hidden_rows"] = counts.get("hidden_rows", 0) + len(marks.hidden_rows)
            counts["hidden_columns"] = counts.get("hidden_columns", 0) + marks.hidden_columns
            yield from _sheet(sheet, marks, settings, shown)
    except DAMAGE as error:
        raise SourceError(Fault(f"the workbook is damaged ({type(error).__name__})", shown, remedy=_BROKEN)) from None
    finally:
        book.close()


def sheet_notes(counts: dict[str, int]) -> dict[str, int]:
    """Return the counts that are not nothing."""
    return {name: count for name, count in counts.items() if count}


def _chosen(book: Any, wanted: Sequence[str], shown: str) -> list[Any]:
    visible = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if list(wanted) == ["*"]:
        return visible
    names = [sheet.title for sheet in book.worksheets]
    if wanted:
        missing = [name for name in wanted if name not in names]
        if missing:
            raise SourceError([Fault(f"there is no sheet {name!r}", shown, key="read.sheets", remedy=nearest(name, names)) for name in missing])
        return [book[name] for name in wanted]
    if len(visible) != 1:
        listed = ", ".join(repr(sheet.title) for sheet in visible) or "none"
        remedy = 'name those to read: sheets: [...], or ["*"] for all'
        raise SourceError(Fault(f"{len(visible)} visible sheets: {listed}", shown, key="read.sheets", remedy=remedy))
    return visible


def _number(letters: str) -> int:
    value = 0
    for letter in letters:
        value = value * 26 + ord(letter) - 64
    return value


def _cell(reference: str) -> tuple[int, int]:
    found = _PLACE.fullmatch(reference.replace("$", ""))
    return (int(found[2]), _number(found[1])) if found else (0, 0)


def _marks(path: Path, sheet: Any, shown: str) -> _Marks:
    """Read a sheet's XML once for what openpyxl's streaming reader passes over."""
    marks = _Marks()
    state: dict[str, Any] = {"row": 0, "cell": "", "formula": False, "value": False, "kind": "", "inside": ""}
    parser = expat.ParserCreate(namespace_separator=" ")

    def start(name: str, attributes: dict[str, str]) -> None:
        state["inside"] = tag = name.rpartition(" ")[2]
        if tag == "row":
            state["row"] = int(attributes.get("r", state["row"] + 1))
            if attributes.get("hidden") in ("1", "true"):
                marks.hidden_rows.add(state["row"])
        elif tag == "c":
            state.update(cell=attributes.get("r", ""), formula=False, value=False, kind=attributes.get("t", ""))
        elif tag == "f":
            state["formula"] = True
        elif tag == "mergeCell":
            first, _, last = attributes.get("ref", "").partition(":")
            marks.merged.append((*_cell(first), *_cell(last or first)))
        elif tag == "col" and attributes.get("hidden") in ("1", "true"):
            marks.hidden_columns += int(attributes.get("max", "1")) - int(attributes.get("min", "1")) + 1

    def text(data: str) -> None:
        state["value"] = state["value"] or (state["inside"] in ("v", "t") and bool(data.strip()))

    def end(name: str) -> None:
        state["inside"] = ""
        if name.rpartition(" ")[2] == "c":
            row = _cell(state["cell"])[0] or state["row"]
            if state["formula"] and not state["value"]:
                marks.uncalculated.setdefault(row, state["cell"])
            elif state["kind"] == "e":
                marks.errors.setdefault(row, state["cell"])

    def entity(*_: object) -> None:
        raise SourceError(Fault("the sheet declares entities of its own", shown, remedy=_BROKEN))

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler, parser.EntityDeclHandler = start, end, text, entity
    with zipfile.ZipFile(path) as archive, archive.open(sheet._worksheet_path.lstrip("/")) as stream:  # openpyxl has no public name for it
        parser.ParseFile(stream)
    return marks


def _sheet(sheet: Any, marks: _Marks, settings: ReadSettings, shown: str) -> Iterator[Row | Malformed]:
    sheet.reset_dimensions()
    names: list[str] | None = None
    covered = _Covered(marks.merged)
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        values = covered.fill(number, [_plain(value) for value in cells])
        place = f"sheet {sheet.title}, row {number}"
        if names is None:
            if number == settings.header or (settings.header is None and any(value is not None for value in values)):
                names = _header(values, number, sheet.title, shown)
            continue
        if all(value is None for value in values) and number not in marks.uncalculated:
            continue
        raw = json.dumps(values, ensure_ascii=False)
        wrong = _wrong(values, names, number, marks, {str(value) for value in settings.missing.values})
        if number in marks.hidden_rows and settings.hidden == "drop":
            yield Malformed("hidden_row", number, raw, place, counts=False)
        elif wrong:
            yield Malformed(wrong, number, raw, place)
        else:
            padded = [*values, *[None] * (len(names) - len(values))]
            yield Row({name: value for name, value in zip(names, padded, strict=False) if name}, number, raw, place)


def _wrong(values: Sequence[Any], names: Sequence[str], number: int, marks: _Marks, missing: set[str]) -> str:
    """Return what is wrong with a row; an error value (`#N/A`) that is declared as missing is not."""
    if number in marks.uncalculated:
        return f"formula_without_value:{marks.uncalculated[number]}"
    if number in marks.errors and any(isinstance(value, str) and value.startswith("#") and value not in missing for value in values):
        return f"cell_error:{marks.errors[number]}"
    stray = next((place for place, value in enumerate(values) if value is not None and (place >= len(names) or not names[place])), None)
    return "" if stray is None else f"value_without_column:column {stray + 1}"


def _header(values: Sequence[Any], number: int, title: str, shown: str) -> list[str]:
    names = ["" if value is None else str(value).strip() for value in values]
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled or not any(names):
        what = f"the header of sheet {title!r} names {', '.join(map(repr, doubled))} more than once" if doubled else f"row {number} of sheet {title!r} is empty"
        raise SourceError(Fault(what, shown, number, "read.header", "name every column once; header: N says which row it is"))
    return names


class _Covered:
    """Gives the cells that a merged range covers the value of its first cell."""

    def __init__(self, merged: Sequence[tuple[int, int, int, int]]) -> None:
        self._waiting = sorted(merged, reverse=True)
        self._open: list[tuple[tuple[int, int, int, int], Any]] = []

    def fill(self, number: int, values: list[Any]) -> list[Any]:
        while self._waiting and self._waiting[-1][0] <= number:
            box = self._waiting.pop()
            self._open.append((box, values[box[1] - 1] if 0 < box[1] <= len(values) else None))
        self._open = [(box, value) for box, value in self._open if box[2] >= number]
        for (_, left, _, right), value in self._open:
            for column in range(left, min(right, max(len(values), left)) + 1):
                if column > len(values):
                    values.append(None)
                values[column - 1] = value
        return values


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    text = str(value)
    return text if text.strip() else None
