"""Tables of rows as files: JSONL, CSV, TSV and Parquet, read row by row and written again in the same form."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from metier.errors import Fault, InputError, SourceError

__all__ = ["FORMS", "Form", "Row", "RowFile", "form_of", "write_rows"]

Form: TypeAlias = Literal["jsonl", "csv", "tsv", "parquet"]
FORMS: Mapping[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
"""Forms by the ending of the file's name."""

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_LONGEST_CELL = 1 << 30
_BLOCK = 1 << 20
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number from 0, the line it begins on (None in Parquet), and its values or why it has none."""

    number: int
    line: int | None
    values: dict[str, Any] | None
    fault: str | None = None


def form_of(path: Path) -> Form:
    """Return the form of a file by its name. Raises InputError for another ending."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise InputError(Fault(f"{path.suffix or 'a name without ending'} is no form of rows that is known", path, remedy=f"use {', '.join(FORMS)}"))
    return form


class RowFile:
    """A file of rows. Nothing is kept in memory but a row (in Parquet a batch of 1,024)."""

    def __init__(self, path: Path, *, encoding: str = "utf-8") -> None:
        self.path = path
        self.form = form_of(path)
        self.encoding = encoding
        if not path.is_file():
            raise SourceError(Fault("there is no such file", path, remedy="check the path"))

    def rows(self) -> Iterator[Row]:
        """Yield the rows; one that cannot be read comes with its fault. Raises SourceError where the file as a whole is wrong."""
        if self.form == "jsonl":
            return self._jsonl()
        return self._parquet() if self.form == "parquet" else self._table()

    def about(self) -> int:
        """Return about how many rows there are: lines, or what Parquet says."""
        if self.form == "parquet":
            return int(_parquet_file(self.path).metadata.num_rows)
        with self.path.open("rb") as stream:
            lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(_BLOCK), b""))
        return max(1, lines - (self.form != "jsonl"))

    def columns(self) -> list[str]:
        """Return the names of the first row's fields."""
        return next((list(row.values) for row in self.rows() if row.values is not None), [])

    def _jsonl(self) -> Iterator[Row]:
        number = 0
        with self.path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                if not raw.strip():
                    continue
                values, fault = _json_row(raw, self.encoding, first=line == 1)
                yield Row(number, line, values, fault)
                number += 1

    def _table(self) -> Iterator[Row]:
        csv.field_size_limit(_LONGEST_CELL)
        encoding = "utf-8-sig" if self.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else self.encoding
        try:
            with self.path.open(encoding=encoding, newline="") as stream:
                reader = csv.reader(stream, delimiter=_DELIMITERS[self.form], strict=True)
                yield from self._table_rows(reader)
        except UnicodeDecodeError as error:
            raise SourceError(
                Fault(f"not {self.encoding} (byte {error.start} of a block)", self.path, remedy="name its encoding: --encoding gb18030")
            ) from None
        except LookupError:
            raise SourceError(Fault(f"there is no encoding {self.encoding!r}", self.path, remedy="for instance utf-8 or gb18030")) from None

    def _table_rows(self, reader: Any) -> Iterator[Row]:
        head: list[str] | None = None
        number = 0
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # Where a quote is broken it cannot be said where the next row begins.
                raise SourceError(Fault(f"not valid {self.form.upper()}: {error}", self.path, line, remedy="mend the quotes of this row")) from None
            if not cells:
                continue
            if head is None:
                head = _head(cells, self.path)
                continue
            whole = len(cells) == len(head)
            yield Row(number, line, dict(zip(head, cells, strict=True)) if whole else None, None if whole else f"{len(cells)} cells in {len(head)} columns")
            number += 1

    def _parquet(self) -> Iterator[Row]:
        number = 0
        for batch in _parquet_file(self.path).iter_batches(batch_size=_BATCH):
            for values in batch.to_pylist():
                yield Row(number, None, values)
                number += 1


def _json_row(raw: bytes, encoding: str, *, first: bool) -> tuple[dict[str, Any] | None, str | None]:
    try:
        text = raw.decode("utf-8-sig" if first and encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        return None, f"not {encoding}"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None, "not valid JSON"
    return (values, None) if isinstance(values, dict) else (None, "not an object")


def _head(cells: list[str], path: Path) -> list[str]:
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        raise SourceError([Fault(f"two columns are named {name!r}", path, 1, remedy="give each column a name of its own") for name in twice])
    return cells


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        raise SourceError(Fault("not a Parquet file", path, remedy="check the file, or name it after its form")) from None


def write_rows(path: Path, rows: Iterable[dict[str, Any]], *, like: RowFile, text_columns: Iterable[str] = (), added: str | None = None) -> None:
    """Write rows in the form of `like` to `path`, which is replaced. In Parquet the types stay, but `text_columns` become text.

    `added` is a column that `like` does not have; outside JSONL its values are JSON.
    """
    if like.form == "jsonl":
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    elif like.form == "parquet":
        _write_parquet(path, rows, like, set(text_columns), added)
    else:
        columns = [*_columns(like), *([added] if added else [])]
        with path.open("w", encoding=like.encoding, newline="") as stream:
            writer = csv.DictWriter(stream, columns, delimiter=_DELIMITERS[like.form], lineterminator="\n")
            writer.writeheader()
            writer.writerows(_flat(row, added) for row in rows)


def _columns(like: RowFile) -> list[str]:
    encoding = "utf-8-sig" if like.encoding == "utf-8" else like.encoding
    with like.path.open(encoding=encoding, newline="") as stream:
        return next((cells for cells in csv.reader(stream, delimiter=_DELIMITERS[like.form]) if cells), [])


def _flat(row: dict[str, Any], added: str | None) -> dict[str, Any]:
    return row if added is None or added not in row else {**row, added: json.dumps(row[added], ensure_ascii=False)}


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]], like: RowFile, text_columns: set[str], added: str | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = []
    made_text: list[str] = []
    for field in _parquet_file(like.path).schema_arrow:
        plain = pa.types.is_string(field.type) or pa.types.is_large_string(field.type) or pa.types.is_nested(field.type)
        if plain or field.name not in text_columns:
            fields.append(field)
        else:
            fields.append(pa.field(field.name, pa.string()))
            made_text.append(field.name)
    schema = pa.schema([*fields, *([pa.field(added, pa.string())] if added else [])])
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            row.update({name: str(row[name]) for name in made_text if row[name] is not None})
            batch.append(_flat(row, added))
            if len(batch) == _BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))
