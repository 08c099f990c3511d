"""Records in Parquet: how a dataset lies on disk. One writer and one reader, used by every room."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metier.artifacts import Artifact
from metier.errors import StoreError
from metier.records import Drop, Record, Source, record_from_dict, record_to_dict

if TYPE_CHECKING:
    import pyarrow

__all__ = ["SPLITS", "dataset_records", "read_drops", "read_records", "write_drops", "write_records", "write_rows"]

SPLITS = ("train", "validation", "test")

_ROWS_A_GROUP = 4096


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


def _write(path: Path, rows: Iterable[dict[str, Any]], schema: pyarrow.Schema) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    batch: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            batch.append(row)
            count += 1
            if len(batch) == _ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        if batch or not count:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return count


def _read(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=_ROWS_A_GROUP):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path} cannot be read as Parquet ({error})\n    -> the file is damaged; remove its folder and run again") from error


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records to one Parquet file and return how many there were. The caller moves the file into place."""

    def rows() -> Iterator[dict[str, Any]]:
        for record in records:
            row = record_to_dict(record)
            row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False, sort_keys=True)
            yield row

    return _write(path, rows(), _record_schema())


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of one Parquet file, in order. Raises StoreError if it is damaged."""
    for row in _read(path):
        row["metadata"] = json.loads(row["metadata"] or "{}")
        yield record_from_dict(row)


def write_drops(path: Path, drops: Iterable[Drop]) -> int:
    """Write the drop ledger and return how many drops it holds."""

    def rows() -> Iterator[dict[str, Any]]:
        for drop in drops:
            source = drop.source
            yield {
                "record_id": drop.record_id,
                "step": drop.step,
                "reason": drop.reason,
                "source": None if source is None else {name: getattr(source, name) for name in Source.__slots__},
                "content": drop.content,
            }

    return _write(path, rows(), _drop_schema())


def read_drops(path: Path) -> Iterator[Drop]:
    """Yield the drops of a drop ledger, in order."""
    for row in _read(path):
        source = row.pop("source")
        yield Drop(**row, source=None if source is None else Source(**source))


def write_rows(path: Path, rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> int:
    """Write plain rows to Parquet. `columns` maps names to 'string', 'int', 'float' or 'strings' (a list of strings)."""
    import pyarrow as pa

    types = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "strings": pa.list_(pa.string())}
    return _write(path, rows, pa.schema([(name, types[kind]) for name, kind in columns.items()]))


def dataset_records(dataset: Artifact, split: str) -> Iterator[Record]:
    """Yield the records of one split of a dataset artefact, in the dataset's order."""
    for name in sorted(dataset.files):
        if name.startswith(f"part-{split}-"):
            yield from read_records(dataset.file(name))
