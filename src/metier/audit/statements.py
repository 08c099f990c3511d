"""The statements of an append, put into words once for a database.

SQLAlchemy builds, looks up and binds a statement each time that it is executed; for the five small ones of an append that took longer
than its two flushes. Here each is compiled when the log is opened, and what is left to do is to bind its values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sql

from metier.audit.tables import BODIES, ENTRIES, HEADS, KEYS, NEWEST, ONLY

__all__ = ["Inserting", "Prepared", "Statements"]

_KEY_ROWS = sql.select(KEYS.c.id, KEYS.c.subject, KEYS.c.wrapped)


class Prepared:
    """A statement in the words of a database. Its values are named as its columns or bound parameters are."""

    def __init__(self, statement: sql.ClauseElement, dialect: sql.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self._text = str(compiled)
        self._order: Sequence[str] | None = compiled.positiontup

    def __call__(self, connection: sql.Connection, *rows: Mapping[str, Any]) -> sql.CursorResult[Any]:
        """Execute it once for each row of values."""
        values = [row if self._order is None else tuple(row[name] for name in self._order) for row in rows]
        return connection.exec_driver_sql(self._text, values if len(values) > 1 else values[0])


class Inserting:
    """The insertion of rows into a table: PostgreSQL gets many of them as one array for each column, which it takes in a single step."""

    def __init__(self, table: sql.Table, dialect: sql.Dialect) -> None:
        self._each = Prepared(sql.insert(table), dialect)
        self._columns = [column.name for column in table.columns]
        arrays = ", ".join(f"%({column.name})s::{column.type.compile(dialect)}[]" for column in table.columns)
        names = ", ".join(self._columns)
        text = f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608 - names of our own tables
        self._together = text if dialect.name == "postgresql" else None

    def __call__(self, connection: sql.Connection, *rows: Mapping[str, Any]) -> None:
        """Insert the rows, at least one."""
        if self._together is None or len(rows) == 1:
            self._each(connection, *rows)
        else:
            connection.exec_driver_sql(self._together, {name: [row[name] for row in rows] for name in self._columns})


class Statements:
    """What an append says to one database."""

    def __init__(self, dialect: sql.Dialect) -> None:
        self.newest_note = Prepared(sql.select(NEWEST.c.note).where(NEWEST.c.id == sql.bindparam("id")), dialect)
        self._keys_of = Prepared(_KEY_ROWS.where(KEYS.c.subject == sql.bindparam("subject")), dialect)
        self.insert_entries, self.insert_bodies = Inserting(ENTRIES, dialect), Inserting(BODIES, dialect)
        self.insert_keys, self.insert_head = Inserting(KEYS, dialect), Inserting(HEADS, dialect)
        update = sql.update(NEWEST).where(NEWEST.c.id == sql.bindparam("row"))
        self._set_newest = Prepared(update.values(note=sql.bindparam("note"), frontier=sql.bindparam("frontier")), dialect)

    def keys_of(self, connection: sql.Connection, subjects: Collection[str]) -> list[tuple[Any, ...]]:
        """Return identifier, subject and wrapped key of each row that one of the subjects has."""
        if len(subjects) == 1:
            return [tuple(row) for row in self._keys_of(connection, {"subject": next(iter(subjects))})]
        return [tuple(row) for row in connection.execute(_KEY_ROWS.where(KEYS.c.subject.in_(subjects)))]

    def set_newest(self, connection: sql.Connection, row: Mapping[str, Any]) -> None:
        """Put a head's columns in the place of the newest head's."""
        self._set_newest(connection, {"row": ONLY, **row})
