"""Records in Parquet: how a dataset lies on disk. One writer and one reader, used by every room."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from metier.artifacts import Artifact
from metier.errors import StoreError
from metier.records import Drop, Record, Source, record_from_dict, record_to_dict, source_to_dict

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "SPLITS",
    "Writer",
    "dataset_records",
    "drop_writer",
    "read_drops",
    "read_records",
    "record_writer",
    "row_writer",
    "write_drops",
    "write_records",
    "write_rows",
]

SPLITS = ("train", "validation", "test")

_ROWS_A_GROUP = 4096

Item = TypeVar("Item")


def _record_schema() -> pyarrow.Schema:
    import pyarrow as pa

    text = pa.string()
    message = pa.struct([("role", text), ("content", text), ("learn", pa.bool_())])
    span = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", text), ("text", text), ("score", pa.float64()), ("rule", text)])
    source = pa.struct([("uri", text), ("digest", text), ("position", text), ("licence", text), ("basis", text)])
    return pa.schema(
        [
            ("id", text),
            ("text", text),
            ("messages", pa.list_(message)),
            ("label", text),
            ("spans", pa.list_(span)),
            ("language", text),
            ("domain", text),
            ("task", text),
            ("source", source),
            ("subject", text),
            ("group", text),
            ("time", text),
            ("parents", pa.list_(text)),
            ("metadata", text),
        ]
    )


def _drop_schema() -> pyarrow.Schema:
    import pyarrow as pa

    text = pa.string()
    source = pa.struct([("uri", text), ("digest", text), ("position", text), ("licence", text), ("basis", text)])
    return pa.schema([("record_id", text), ("step", text), ("reason", text), ("source", source), ("content", text)])


class Writer(Generic[Item]):
    """Writes items to one Parquet file, row group after row group; a context manager. The caller moves the file into place."""

    def __init__(self, path: Path, schema: pyarrow.Schema, row_of: Callable[[Item], dict[str, Any]]) -> None:
        import pyarrow.parquet as pq

        self.count = 0
        self._schema = schema
        self._row_of = row_of
        self._batch: list[dict[str, Any]] = []
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def add(self, item: Item) -> None:
        """Take one item."""
        self._batch.append(self._row_of(item))
        self.count += 1
        if len(self._batch) == _ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._file.write_table(pa.Table.from_pylist(self._batch, schema=self._schema))
        self._batch = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._batch or not self.count):
            self._flush()
        self._file.close()


def _write(writer: Writer[Item], items: Iterable[Item]) -> int:
    with writer:
        for item in items:
            writer.add(item)
    return writer.count


def _read(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=_ROWS_A_GROUP):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path} cannot be read as Parquet ({error})\n    -> the file is damaged; remove its folder and run again") from error


def record_writer(path: Path) -> Writer[Record]:
    """Return a writer of records."""
    return Writer(path, _record_schema(), _record_row)


def _record_row(record: Record) -> dict[str, Any]:
    row = record_to_dict(record)
    row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False, sort_keys=True)
    return row


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records to one Parquet file and return how many there were."""
    return _write(record_writer(path), records)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of one Parquet file, in order. Raises StoreError if it is damaged."""
    for row in _read(path):
        row["metadata"] = json.loads(row["metadata"] or "{}")
        yield record_from_dict(row)


def drop_writer(path: Path) -> Writer[Drop]:
    """Return a writer of drops."""
    return Writer(path, _drop_schema(), _drop_row)


def _drop_row(drop: Drop) -> dict[str, Any]:
    return {"record_id": drop.record_id, "step": drop.step, "reason": drop.reason, "source": source_to_dict(drop.source), "content": drop.content}


def write_drops(path: Path, drops: Iterable[Drop]) -> int:
    """Write the drop ledger and return how many drops it holds."""
    return _write(drop_writer(path), drops)


def read_drops(path: Path) -> Iterator[Drop]:
    """Yield the drops of a drop ledger, in order."""
    for row in _read(path):
        source = row.pop("source")
        yield Drop(**row, source=None if source is None else Source(**source))


def row_writer(path: Path, columns: Mapping[str, str]) -> Writer[dict[str, Any]]:
    """Return a writer of plain rows. `columns` maps names to 'string', 'int', 'float' or 'strings' (a list of strings)."""
    import pyarrow as pa

    types = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "strings": pa.list_(pa.string())}
    return Writer(path, pa.schema([(name, types[kind]) for name, kind in columns.items()]), dict)


def write_rows(path: Path, rows: Iterable[dict[str, Any]], columns: Mapping[str, str]) -> int:
    """Write plain rows to Parquet, with `columns` as `row_writer` takes them, and return how many there were."""
    return _write(row_writer(path, columns), rows)


def dataset_records(dataset: Artifact, split: str) -> Iterator[Record]:
    """Yield the records of one split of a dataset artefact, in the dataset's order."""
    for name in sorted(dataset.files):
        if name.startswith(f"part-{split}-"):
            yield from read_records(dataset.file(name))
