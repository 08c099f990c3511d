"""What the phases leave on the disk: arrays written aside and moved into place, columns of all shards, texts by position."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.prepare.compare import parts, plain
from metier.prepare.dedup.sign import COLUMNS, Columns, Plan, Rows
from metier.store import write_atomically

__all__ = ["join_columns", "save", "save_run", "write_texts"]


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one uncompressed `.npz` (or, of one array named `""`, as `.npy`); a file that is there is whole."""
    stream = io.BytesIO()
    if list(arrays) == [""]:
        np.save(stream, arrays[""], allow_pickle=False)
    else:
        np.savez(stream, allow_pickle=False, **arrays)
    write_atomically(path, stream.getvalue())


def save_run(path: Path, columns: Columns, run: NDArray[Any]) -> None:
    """Write a signed shard: its run first, its columns last, so that columns that are there mean that both are."""
    save(path.with_suffix(".run.npy"), {"": run})
    save(path, columns)


def join_columns(shards: Sequence[Path], folder: Path) -> tuple[dict[str, NDArray[Any]], list[tuple[Path, int]]]:
    """Write each column of all shards as one file and return them, mapped from the disk, and the runs with the number of their first row."""
    sizes, widths = [], []
    for path in shards:
        with np.load(path) as found:
            sizes.append(len(found["score"]))
            widths.append(found["id"].dtype.itemsize)
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    done = folder / "columns.json"
    if not done.exists():
        _fill_columns(shards, folder, starts, max(widths, default=1))
        write_atomically(done, json.dumps({"rows": int(starts[-1])}).encode())
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r" if starts[-1] else None) for name in COLUMNS}
    return columns, [(path.with_suffix(".run.npy"), int(start)) for path, start in zip(shards, starts[:-1], strict=True)]


def _fill_columns(shards: Sequence[Path], folder: Path, starts: NDArray[np.int64], width: int) -> None:
    kinds = {"digest": "<u8", "asked": "<u8", "answered": "<u8", "score": "<f8", "length": "<i8", "time": "<i8", "id": f"S{width}", "short": "?", "empty": "?"}
    rows = int(starts[-1])
    for name, kind in kinds.items():
        shape = (rows, 2) if name in ("digest", "asked", "answered") else (rows,)
        if not rows:
            np.save(folder / f"{name}.npy", np.zeros(shape, dtype=kind))
            continue
        out = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
        for path, start, stop in zip(shards, starts[:-1], starts[1:], strict=True):
            with np.load(path) as found:
                out[start:stop] = found[name]
        out.flush()


def write_texts(path: Path, rows: Rows, wanted: NDArray[np.int64], nodes: NDArray[np.int64], plan: Plan) -> None:
    """Read the rows once more and keep the parts of rows `wanted` (sorted numbers), which stand for `nodes`; the index is written last.

    What is kept is each part in plain form, which all rows of one node share, so it does not matter which of them stands for it.
    """
    bounds, sizes = np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.int64)
    aside = path.with_suffix(".part")
    with aside.open("wb") as stream:
        place, position = 0, 0
        for number, row in _first(rows, int(wanted[-1]) + 1 if len(wanted) else 0):
            if number == wanted[place]:
                content = {name: plain(text) for name, text in parts(row.record, without=plan.score).items()}
                data = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
                bounds[place], sizes[place] = position, len(data)
                stream.write(data)
                position += len(data)
                place += 1
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    order = np.argsort(nodes)
    save(path.with_suffix(".npz"), {"nodes": nodes[order], "bounds": bounds[order], "sizes": sizes[order]})


def _first(rows: Rows, count: int) -> Iterable[tuple[int, Any]]:
    """Yield rows while their numbers are below `count`."""
    if count:
        for number, row in rows:
            yield number, row
            if number + 1 == count:
                return
