"""The log's database: five tables, over SQLite or PostgreSQL, and the transactions that write to them one at a time."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from metier.errors import LedgerError, MissingExtra

__all__ = ["BODIES", "ENTRIES", "FACTS", "HEADS", "KEYS", "NEWEST", "ONLY", "TABLES", "connect", "guarded", "reading", "scrub", "writing"]

TABLES = sql.MetaData()
_NUMBER = sql.BigInteger().with_variant(sql.Integer(), "sqlite")

ONLY = 1
"""The key of the row in tables that have one."""

FACTS = sql.Table(
    "ledger_facts",
    TABLES,
    sql.Column("id", _NUMBER, primary_key=True, autoincrement=False),
    sql.Column("facts", sql.LargeBinary, nullable=False),
)
"""One row: what the log says of itself (`LogFacts`)."""

ENTRIES = sql.Table(
    "ledger_entries",
    TABLES,
    sql.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sql.Column("envelope", sql.LargeBinary, nullable=False),
    sql.Column("leaf", sql.LargeBinary, nullable=False),
)

BODIES = sql.Table(
    "ledger_bodies",
    TABLES,
    sql.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sql.Column("key", sql.String(64), nullable=False),
    sql.Column("sealed", sql.LargeBinary, nullable=False),
)
"""Encrypted bodies, apart from the entries that commit to them."""

KEYS = sql.Table(
    "ledger_keys",
    TABLES,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("subject", sql.String(64), nullable=False, index=True),
    sql.Column("wrapped", sql.LargeBinary, nullable=False),
)
"""A data key for each subject, wrapped by the body key. To delete its row is to erase what was said of the subject."""

HEADS = sql.Table(
    "ledger_heads",
    TABLES,
    sql.Column("size", _NUMBER, primary_key=True, autoincrement=False),
    sql.Column("note", sql.LargeBinary, nullable=False),
    sql.Column("frontier", sql.LargeBinary, nullable=False),
)
"""Signed heads that are kept for good, each with the tree's frontier, from which the tree grows on."""

NEWEST = sql.Table(
    "ledger_newest",
    TABLES,
    sql.Column("id", _NUMBER, primary_key=True, autoincrement=False),
    sql.Column("note", sql.LargeBinary, nullable=False),
    sql.Column("frontier", sql.LargeBinary, nullable=False),
)
"""One row: the newest head, written in the transaction of the entries that it covers."""

_PATIENCE_MS = 30_000
_ADVISORY = 0x4D657469
"""First half of PostgreSQL's advisory lock, `Meti`; the second is the schema's hash, so that two logs don't wait for each other."""


def connect(where: str | Path) -> sql.Engine:
    """Return an engine for a file of SQLite or an SQLAlchemy URL. Raises LedgerError for other databases, MissingExtra without psycopg."""
    try:
        url = sql.make_url(where) if isinstance(where, str) and "://" in where else sql.URL.create("sqlite", database=str(where))
    except (ArgumentError, ValueError):
        raise LedgerError("the log's URL cannot be read\n    -> write it as postgresql://host/database or sqlite:///path") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _sqlite(url)
    if kind == "postgresql":
        return _postgresql(url)
    raise LedgerError(f"the log cannot lie in {kind}\n    -> use SQLite (a path) or PostgreSQL (postgresql://host/database)")


def _sqlite(url: sql.URL) -> sql.Engine:
    if url.database in (None, "", ":memory:"):
        raise LedgerError("a log in memory would not be durable\n    -> give a path: sqlite:///path")
    engine = sql.create_engine(url, connect_args={"timeout": _PATIENCE_MS / 1000, "isolation_level": None})

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        for line in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "secure_delete = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {line}")

    @sql.event.listens_for(engine, "begin")
    def begin(connection: sql.Connection) -> None:
        # The driver would begin with a read lock and fail when it turns into a write lock.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def _postgresql(url: sql.URL) -> sql.Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg" and importlib.util.find_spec("psycopg") is None:
        raise MissingExtra("psycopg", "postgresql", "a log in PostgreSQL")
    # A connection whose other side has gone away silently is given up after the same patience as everything else.
    arguments = {"connect_timeout": 10, "tcp_user_timeout": _PATIENCE_MS, "keepalives_idle": 10, "application_name": "metier ledger"}
    engine = sql.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=arguments)

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            cursor.execute(f"SET lock_timeout = {_PATIENCE_MS}")
        connection.commit()

    @sql.event.listens_for(engine, "before_cursor_execute")
    def in_bytes(_: sql.Connection, cursor: Any, *rest: Any) -> None:
        # Rows that are streamed are bytes for the most part, which PostgreSQL otherwise writes out in hexadecimal.
        if rest[2] is not None and rest[2].execution_options.get("yield_per"):
            cursor.format = 1

    return engine


@contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Begin a transaction that nobody else's overlaps; committed at the end of the block, undone if it raises."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY}, hashtext(current_schema()))")
        yield connection


@contextmanager
def reading(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Begin a transaction that sees the log at one moment."""
    connection = engine.connect()
    if engine.dialect.name == "postgresql":
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
    with connection, connection.begin():
        yield connection


def scrub(engine: sql.Engine) -> None:
    """Leave no copy of deleted rows in the files of SQLite: pages are overwritten already, the write-ahead log is emptied here."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def guarded(engine: sql.Engine, what: str) -> Iterator[None]:
    """Turn the failures of database and disk into LedgerError; no statement, value or password is shown."""
    try:
        yield
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error, OSError) as error:
        place = engine.url.render_as_string(hide_password=True)
        cause = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        remedy = "nothing was kept by halves; see that the database can be reached and has room, then try again"
        raise LedgerError(f"cannot {what} the log in {place}: {cause}\n    -> {remedy}") from error
