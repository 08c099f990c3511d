"""Files as rows: JSON (lists and lines), CSV and TSV, Parquet, XML. Each row knows its place; a bad row is not an exception."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, TypeAlias

from metier.errors import Fault, SourceError
from metier.sources.encoding import open_text

__all__ = ["DECODER", "LARGEST_LINE", "LARGEST_START", "LARGEST_WHOLE", "Malformed", "Row", "Rows", "encodable", "read_json", "read_parquet", "read_table"]

LARGEST_LINE = 64 << 20
LARGEST_WHOLE = 256 << 20
"""Characters that a file read as one value may have."""
_LARGEST_LIST = 2 << 30
LARGEST_START = 1 << 20
"""Characters of a first line that are looked at to tell one object from lines of objects."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column, the line it begins at (or its number in a file without lines) and its raw text.

    `position` says where it is in files that have more than lines: a page, a sheet, a stretch of characters.
    """

    values: dict[str, Any]
    place: int
    raw: str
    position: str = ""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A stretch of a file that is no row, and why. What the settings leave out on purpose does not count as malformed."""

    reason: str
    place: int
    raw: str
    position: str = ""
    counts: bool = True


Rows: TypeAlias = Iterator[Row | Malformed]


def _missing(name: str) -> None:
    """Read NaN and the infinities, which many writers put for a missing value though JSON has none, as null."""


DECODER = json.JSONDecoder(parse_constant=_missing)
"""Reads JSON as it is written in the wild: NaN is a missing value."""


def read_json(path: Path, shown: str, encoding: str) -> Rows:
    """Read a JSON list, JSON Lines or one object over several lines: what the file's first character and line say.

    Raises SourceError where a list is broken, or a line is longer than `LARGEST_LINE` characters.
    """
    with open_text(path, encoding) as stream:
        first = stream.read(1)
        while first.isspace():
            first = stream.read(1)
    if first == "{" and (whole := _one_object(path, encoding)) is not None:
        yield whole
        return
    with open_text(path, encoding) as stream:
        yield from _items(stream, shown) if first == "[" else _lines(stream, shown)


def _one_object(path: Path, encoding: str) -> Row | None:
    """Return the object that a whole file is, where its first line alone is none; None for lines of objects."""
    with open_text(path, encoding) as stream:
        start = stream.readline(LARGEST_START)
        while start and not start.strip():
            start = stream.readline(LARGEST_START)
        try:
            json.loads(start)
            return None
        except (ValueError, RecursionError):
            text = start + stream.read(LARGEST_WHOLE)
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return Row(value, 1, text) if isinstance(value, dict) else None


def _lines(stream: IO[str], shown: str) -> Rows:
    number = 0
    while line := stream.readline(LARGEST_LINE + 1):
        number += 1
        if len(line) > LARGEST_LINE:
            raise SourceError(Fault("a line of more than 64 Mi characters", shown, number, remedy="one record a line; split the file"))
        raw = line.rstrip("\r\n")
        if raw.strip():
            yield _object(raw, number)


def _object(raw: str, number: int) -> Row | Malformed:
    try:
        value = DECODER.decode(raw)
    except json.JSONDecodeError as error:
        return Malformed(f"malformed_json:{error.msg} at column {error.colno}", number, raw)
    except (ValueError, RecursionError):
        return Malformed("malformed_json:a number or nesting beyond what JSON readers take", number, raw)
    return _checked(value, number, raw)


def _checked(value: Any, place: int, raw: str, position: str = "") -> Row | Malformed:
    if not isinstance(value, dict):
        return Malformed("not_an_object", place, raw, position)
    if "\\u" in raw and not encodable(value):
        return Malformed("lone_surrogate", place, raw, position)
    return Row(value, place, raw, position)


def encodable(value: Any) -> bool:
    """Tell whether a value can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _items(stream: IO[str], shown: str) -> Rows:
    text = stream.read(_LARGEST_LIST)
    if stream.read(1):
        raise SourceError(Fault("a JSON list of more than 2 Gi characters", shown, remedy="write one object a line (.jsonl); it is read line by line"))
    position = _skip(text, text.index("[") + 1)
    line, counted, item = 1, 0, 0
    while text[position : position + 1] != "]":
        passed = text.count("\n", counted, position)
        line, counted, item = line + passed, position, 1 if passed else item + 1
        try:
            value, end = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "a number or nesting beyond what JSON readers take"
            place = text.count("\n", 0, error.pos) + 1 if isinstance(error, json.JSONDecodeError) else line
            raise SourceError(Fault(f"broken JSON list: {what}", shown, place, remedy="mend the file; is it cut off?")) from None
        # A list may stand on one line whole, so items after a line's first are counted.
        yield _checked(value, line, text[position:end], f"line {line}, item {item}" if item > 1 else "")
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            place = text.count("\n", 0, position) + 1
            raise SourceError(Fault("broken JSON list: a comma or ] is missing", shown, place, remedy="mend the file; is it cut off?"))
    rest = _skip(text, position + 1)
    if rest != len(text):
        place = text.count("\n", 0, rest) + 1
        raise SourceError(Fault("text after the end of the JSON list", shown, place, remedy="one list a file, or one object a line"))


def _skip(text: str, position: int) -> int:
    while text[position : position + 1] in {" ", "\t", "\n", "\r"}:
        position += 1
    return position


class _Tape:
    """Hands lines to the CSV reader and keeps those of the row being read."""

    def __init__(self, stream: IO[str], shown: str) -> None:
        self._stream = stream
        self._shown = shown
        self._lines: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(LARGEST_LINE + 1):
            self.number += 1
            if len(line) > LARGEST_LINE:
                raise SourceError(Fault("a line of more than 64 Mi characters", self._shown, self.number, remedy="is this file really a table?"))
            self._lines.append(line)
            yield line

    def take(self) -> tuple[int, str]:
        """Return the first line's number and the raw text of what was read since the last call."""
        raw, first = "".join(self._lines).rstrip("\r\n"), self.number - len(self._lines) + 1
        self._lines.clear()
        return first, raw


def read_table(path: Path, shown: str, encoding: str, delimiter: str) -> Rows:
    """Read CSV (RFC 4180: quotes are doubled, a quoted field may hold line ends) with a header row.

    Raises SourceError for a header with empty or doubled names and for a quote that is never closed.
    """
    csv.field_size_limit(LARGEST_LINE)
    with open_text(path, encoding) as stream:
        tape = _Tape(stream, shown)
        reader = csv.reader(iter(tape), delimiter=delimiter, strict=True)
        header = _header(reader, tape, shown)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                first, raw = tape.take()
                if "unexpected end of data" in str(error):
                    raise SourceError(
                        Fault("a quote opens here and is never closed", shown, first, remedy='close it, or double it ("") inside the text')
                    ) from None
                yield Malformed(f"malformed_row:{error}", first, raw)
                continue
            first, raw = tape.take()
            if cells is None:
                return
            if not raw.strip():
                continue
            if len(cells) != len(header):
                yield Malformed(f"wrong_field_count:{len(cells)}!={len(header)}", first, raw)
            elif "\x00" in raw:
                yield Malformed("nul_byte", first, raw)
            else:
                yield Row(dict(zip(header, cells, strict=True)), first, raw)


def _header(reader: Any, tape: _Tape, shown: str) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise SourceError(Fault(f"the header is no CSV row: {error}", shown, 1, remedy="the first row names the columns")) from None
    tape.take()
    doubled = sorted({name for name in header if header.count(name) > 1})
    if not header or doubled:
        what = f"the header names {', '.join(map(repr, doubled))} more than once" if doubled else "the first line is empty"
        raise SourceError(Fault(what, shown, 1, remedy="the first row names every column once"))
    return header


def read_parquet(path: Path, shown: str) -> Rows:
    """Read the rows of a Parquet file. Raises SourceError if it is damaged or holds binary columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = 0
    try:
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    place += 1
                    plain = {name: _plain(value) for name, value in values.items()}
                    yield Row(plain, place, json.dumps(plain, ensure_ascii=False))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SourceError(Fault(f"not a readable Parquet file ({reason})", shown, remedy="write the file again; is it cut off?")) from None
    except TypeError as error:
        raise SourceError(Fault(str(error), shown, place, remedy="keep only columns of text, numbers, dates and lists of them")) from None


_TEXTUAL: dict[type, Callable[[Any], str]] = {datetime: datetime.isoformat, date: date.isoformat, time: time.isoformat, Decimal: str}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if type(value) in _TEXTUAL:
        return _TEXTUAL[type(value)](value)
    raise TypeError(f"a column of {type(value).__name__} has no text form")
