"""Parts of the audit tests: a log on either database, and events."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from metier.audit import AuditSettings, Keys, Ledger, open_ledger
from metier.events import Event

SERVER = os.environ.get("METIER_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test")


def event(number: int = 0, *, subject: str | None = None, body: bool = True, **facts: Any) -> Event:
    """Return a small event with, usually, a body."""
    time = f"2026-01-31T12:00:{number % 60:02d}.000000Z"
    answer = {"question": f"how many frames {number}?", "answer": "七"}
    return Event("prediction", f"keeper-{number % 3}", time, {"request": number, **facts}, answer if body else None, subject)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Keys of a log, not yet made."""
    return Keys.open(tmp_path / "state" / "keys")


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a schema of our own on a real server; skipped where there is none."""
    engine, schema = sql.create_engine(SERVER, connect_args={"connect_timeout": 3}), f"ledger_{uuid.uuid4().hex[:12]}"
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    except sql.exc.OperationalError:
        pytest.skip(f"no PostgreSQL answers at {SERVER}; another one can be named in METIER_TEST_POSTGRESQL")
    yield f"{SERVER}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where a log lies: once a file, once a server."""
    return request.getfixturevalue("postgresql") if request.param == "postgresql" else tmp_path / "state" / "ledger.sqlite"


Reopen = Callable[..., Ledger]


@pytest.fixture
def reopen(where: str | Path, keys: Keys) -> Iterator[Reopen]:
    """Open the same log again, as another process would; closed at the end."""
    opened: list[Ledger] = []

    def call(**settings: Any) -> Ledger:
        opened.append(open_ledger(where, keys, AuditSettings(**{"head_every": 8, **settings})))
        return opened[-1]

    yield call
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Reopen) -> Ledger:
    """An empty log that stores a head every eight entries."""
    return reopen()


@pytest.fixture
def heads(ledger: Ledger) -> Path:
    """The log's heads file."""
    return ledger._heads.path


def execute(ledger: Ledger, statement: str, **values: Any) -> None:
    """Change the log's database behind its back."""
    with ledger._engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sql.text(statement), values)
