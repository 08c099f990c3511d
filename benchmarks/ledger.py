"""The audit log on this disk: durable appends one by one, in batches and from many threads, verification, on SQLite and PostgreSQL.

    python benchmarks/ledger.py [--folder FOLDER] [--postgresql URL] [--rounds N]

The last line is JSON. Every append is durable when it is counted: one flush of the database's log and one of the heads file.
Each figure is the median of the rounds. `floor` is the same disk without a ledger: a write and an fdatasync of 1 KB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from metier.audit import Keys, Ledger, open_ledger
from metier.audit.verify import verify
from metier.events import Event, now

_SINGLE, _BATCHES, _BATCH, _THREADS, _EACH = 400, 40, 250, 32, 60


def event(number: int) -> Event:
    """Return an event of the size of a served answer's: digests in the open, question and answer encrypted."""
    facts = {"request": number, "adapter": "a" * 64, "release": "b" * 64, "base": "c" * 64, "tokens": 120}
    return Event("prediction", "client-7", now(), facts, {"question": "how " * 40, "answer": "so " * 160}, f"subject-{number % 50}")


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def threads_append(ledger: Ledger) -> None:
    def work(first: int) -> None:
        for number in range(_EACH):
            ledger.record(event(first + number))

    running = [threading.Thread(target=work, args=(number * _EACH,)) for number in range(_THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def one_by_one(ledger: Ledger) -> tuple[float, float]:
    """Return the rate of single appends, and their p50 in milliseconds."""
    spent = [seconds(lambda number=number: ledger.record(event(number))) for number in range(_SINGLE)]
    return _SINGLE / sum(spent), statistics.median(spent) * 1000


def measure(where: str | Path, folder: Path) -> dict[str, float]:
    """Return one round's rates, each a second."""
    with open_ledger(where, Keys.open(folder / "keys")) as ledger:
        single, median = one_by_one(ledger)
        batches = [[event(number) for number in range(_BATCH)] for _ in range(_BATCHES)]
        batched = _BATCHES * _BATCH / seconds(lambda: [ledger.append(batch) for batch in batches])
        threaded = _THREADS * _EACH / seconds(lambda: threads_append(ledger))
        found: list[Any] = []
        checked = seconds(lambda: found.append(ledger.state()))
        if not found[0].intact:
            raise SystemExit(f"the log does not verify: {found[0].fault}")
        size = ledger.export(folder / "log.jsonl")
        exported = seconds(lambda: found.append(verify(folder / "log.jsonl", key=ledger.public)))
        if not found[1].intact:
            raise SystemExit(f"the exported log does not verify: {found[1].fault}")
    return {
        "single_appends_per_second": single,
        "single_append_p50_ms": median,
        "batched_appends_per_second": batched,
        "threads_appends_per_second": threaded,
        "verified_entries_per_second": size / checked,
        "verified_entries_per_second_exported": size / exported,
    }


def floor(folder: Path) -> float:
    """Return durable writes a second of this disk, without anything."""
    descriptor = os.open(folder / "floor", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def write() -> None:
        for _ in range(_SINGLE):
            os.write(descriptor, bytes(1024))
            os.fdatasync(descriptor)

    rate = _SINGLE / seconds(write)
    os.close(descriptor)
    return rate


def plain_sqlite(folder: Path) -> float:
    """Return single durable inserts a second of the same rows into a table of SQLite without hashing, encryption or signature."""
    connection = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
    for line in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE log (number INTEGER PRIMARY KEY, event BLOB)"):
        connection.execute(line)

    def insert() -> None:
        for number in range(_SINGLE):
            item = event(number)
            connection.execute("INSERT INTO log (event) VALUES (?)", (json.dumps([item.actor, item.time, item.facts, item.body]).encode(),))

    rate = _SINGLE / seconds(insert)
    connection.close()
    return rate


def rounds_of(count: int, once: Callable[[Path], dict[str, float]], parent: Path) -> dict[str, float]:
    """Return the median of each figure over rounds, each in a folder of its own."""
    found = []
    for _ in range(count):
        folder = Path(tempfile.mkdtemp(dir=parent))
        found.append(once(folder))
        shutil.rmtree(folder)
    return {name: round(statistics.median(item[name] for item in found), 2) for name in found[0]}


def on_postgresql(url: str, folder: Path) -> dict[str, float]:
    engine, schema = sql.create_engine(url), f"ledger_benchmark_{os.getpid()}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    try:
        placed = sql.make_url(url).update_query_dict({"options": f"-csearch_path={schema}"})
        return measure(placed.render_as_string(hide_password=False), folder)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
        engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder on the disk to measure")
    parser.add_argument("--postgresql", default="postgresql+psycopg://postgres@127.0.0.1:5432/test", help="a server, left out if it does not answer")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ours = {"sqlite": rounds_of(options.rounds, lambda folder: measure(folder / "ledger.sqlite", folder), options.folder)}
    try:
        ours["postgresql"] = rounds_of(options.rounds, lambda folder: on_postgresql(options.postgresql, folder), options.folder)
    except sql.exc.OperationalError as error:
        print(f"PostgreSQL is left out: {error.orig}")
    peers = rounds_of(
        options.rounds, lambda folder: {"floor_fdatasync_per_second": floor(folder), "plain_sqlite_inserts_per_second": plain_sqlite(folder)}, options.folder
    )
    target = {"single_appends_per_second": 200, "batched_appends_per_second": 2000, "verified_entries_per_second": 50_000}
    ratios = {f"sqlite_{name}_to_target": round(ours["sqlite"][name] / value, 2) for name, value in target.items()}
    ratios["single_append_to_plain_sqlite_insert"] = round(ours["sqlite"]["single_appends_per_second"] / peers["plain_sqlite_inserts_per_second"], 3)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    facts = {"rounds": options.rounds, "batch": _BATCH, "threads": _THREADS, **ours}
    print(json.dumps({"benchmark": "ledger", "machine": machine, "ours": facts, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
