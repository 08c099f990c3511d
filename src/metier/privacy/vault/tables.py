"""The vault's database: a file of SQLite that only its owner can read, with nothing in it that can be read without the master key."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from metier.errors import PrivacyError

__all__ = ["FACTS", "FILE", "ORIGINALS", "SUBJECTS", "TABLES", "guarded", "open_database", "scrub", "writing"]

FILE = "vault.sqlite"
_PATIENCE_SECONDS = 30.0

TABLES = sql.MetaData()
FACTS = sql.Table(
    "facts",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("project", sql.Text, nullable=False),
    sql.Column("key_id", sql.Text, nullable=False),
    sql.Column("wrapped", sql.LargeBinary, nullable=False),
    sql.Column("created", sql.Text, nullable=False),
)
SUBJECTS = sql.Table(
    "subjects",
    TABLES,
    sql.Column("subject", sql.Text, primary_key=True),
    sql.Column("wrapped", sql.LargeBinary, nullable=False),
)
ORIGINALS = sql.Table(
    "originals",
    TABLES,
    sql.Column("token", sql.Text, primary_key=True),
    sql.Column("subject", sql.Text, primary_key=True, index=True),
    sql.Column("entity", sql.Text, nullable=False),
    sql.Column("check", sql.LargeBinary, nullable=False),
    sql.Column("sealed", sql.LargeBinary, nullable=False),
)


def open_database(folder: Path) -> sql.Engine:
    """Return the engine of a vault's database; the file is made, readable by its owner only, if it is not there."""
    path = folder / FILE
    with guarded(path, "open"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": _PATIENCE_SECONDS})

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None
        for line in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {line}")

    @sql.event.listens_for(engine, "begin")
    def begin(connection: sql.Connection) -> None:
        # The driver would begin with a read lock and fail when it turns into a write lock.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


@contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Begin a transaction that no other process's overlaps; committed at the end of the block, undone if it raises."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def scrub(engine: sql.Engine) -> None:
    """Leave no copy of deleted rows in the files: free pages are given back, the write-ahead log is emptied."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        # Outside any transaction, which VACUUM cannot stand.
        for line in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            cursor.execute(line)
            cursor.fetchall()
    finally:
        connection.close()


@contextmanager
def guarded(path: Path, what: str) -> Iterator[None]:
    """Turn the failures of database and disk into PrivacyError; no statement or value is shown."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = type(getattr(error, "orig", None) or error).__name__
        said = "it is damaged, or another process holds it" if "Database" in cause or "Operational" in cause else "it cannot be written"
        raise PrivacyError(f"cannot {what} the vault {path} ({cause}): {said}\n    -> nothing was kept by halves; look at the file, then try again") from error
