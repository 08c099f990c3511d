"""The statements of an append, put into words once for a database.

SQLAlchemy builds, looks up and binds a statement each time that it is executed; for the five small ones of an append that took longer
than its two flushes. Here each is compiled when the log is opened, and what is left to do is to bind its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sql

from metier.audit.tables import BODIES, ENTRIES, HEADS, KEYS, NEWEST, ONLY

__all__ = ["Prepared", "Statements"]


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


class Statements:
    """What an append says to one database."""

    def __init__(self, dialect: sql.Dialect) -> None:
        def prepared(statement: sql.ClauseElement) -> Prepared:
            return Prepared(statement, dialect)

        self.newest_note = prepared(sql.select(NEWEST.c.note).where(NEWEST.c.id == sql.bindparam("id")))
        self.keys_of = prepared(sql.select(KEYS.c.id, KEYS.c.subject, KEYS.c.wrapped).where(KEYS.c.subject == sql.bindparam("subject")))
        self.insert_entries = prepared(sql.insert(ENTRIES))
        self.insert_bodies = prepared(sql.insert(BODIES))
        self.insert_keys = prepared(sql.insert(KEYS))
        self.insert_head = prepared(sql.insert(HEADS))
        values = {name: sql.bindparam(name) for name in ("note", "frontier")}
        self._set_newest = prepared(sql.update(NEWEST).where(NEWEST.c.id == sql.bindparam("row")).values(values))

    def set_newest(self, connection: sql.Connection, row: Mapping[str, Any]) -> None:
        """Put a head's columns in the place of the newest head's."""
        self._set_newest(connection, {"row": ONLY, **row})
