"""Keeps the originals of replaced values: found by tokens, readable with the master key, a purpose and a name, and never unseen.

::

    token        HMAC-SHA-256 under the token key of kind and value, 80 bits: the same value has the same token in the whole project
    original     AES-256-GCM under the key of its subject, bound to project, kind, subject and token
    subject key  random, wrapped by the master key; a person is forgotten by destroying it
    token key, subject index key   random, wrapped by the master key; they outlive its exchange
    master key   32 bytes in a file that lies elsewhere
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from metier.errors import Fault, InputError, PrivacyError
from metier.events import Event, now
from metier.people import checked_name
from metier.privacy.surrogates import normalise
from metier.privacy.vault.keys import KEY_BYTES, KeyFile, id_of, opened, sealed
from metier.privacy.vault.tables import FACTS, FILE, ORIGINALS, SUBJECTS, TABLES, guarded, open_database, writing

__all__ = ["Entry", "Original", "SubjectTokens", "Vault", "VaultState", "checked_purpose"]

Entry = tuple[str, str, str]
"""Token, kind and original value."""

_ONLY = 1
_TOKEN_BYTES = 10
_SHORTEST_PURPOSE = 4


@dataclass(frozen=True, slots=True)
class Original:
    """What a token stands for."""

    token: str
    entity: str
    value: str


@dataclass(frozen=True, slots=True)
class VaultState:
    """What may be said of a vault without opening anything in it."""

    project: str
    key_id: str
    created: str
    subjects: int
    originals: int


def checked_purpose(purpose: str) -> str:
    """Return a purpose without blanks around it. Raises InputError for one that says nothing."""
    purpose = " ".join(purpose.split())
    if len(purpose) < _SHORTEST_PURPOSE:
        raise InputError(Fault("say what the originals are needed for", key="purpose", remedy="for instance: recall of a faulty device, case 12"))
    return purpose


class Vault:
    """The vault of one project in a folder of its own. Several processes may write to it at once."""

    def __init__(self, folder: Path, key: KeyFile, *, token_bytes: int = _TOKEN_BYTES) -> None:
        self.folder = folder
        self._key_file = key
        self._token_bytes = token_bytes
        self._engine = open_database(folder)
        with guarded(folder / FILE, "open"), self._engine.connect() as connection, connection.begin():
            self._unlock(connection)

    @classmethod
    def create(cls, folder: Path, key: KeyFile, *, project: str) -> Vault:
        """Make a vault, or open it if it is there. Raises PrivacyError if the key is missing, or not the vault's."""
        engine = open_database(folder)
        with guarded(folder / FILE, "begin"), writing(engine) as connection:
            TABLES.create_all(connection)
            if connection.execute(sql.select(FACTS.c.id)).first() is None:
                master = key.read()
                wrapped = sealed(master, os.urandom(2 * KEY_BYTES), "vault", project)
                row = {"id": _ONLY, "project": project, "key_id": id_of(master), "wrapped": wrapped, "created": now()}
                connection.execute(sql.insert(FACTS), row)
        engine.dispose()
        return cls(folder, key)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _unlock(self, connection: sql.Connection) -> None:
        """Read the keys below the master key. Raises PrivacyError for a folder without a vault, or another key."""
        if not sql.inspect(connection).has_table(FACTS.name) or (row := connection.execute(sql.select(FACTS)).first()) is None:
            raise PrivacyError(f"there is no vault in {self.folder}\n    -> one is made by: metier data deidentify ... --vault FOLDER")
        self._master = self._key_file.fitting(row.key_id)
        self._key_id, self.project, self._created = row.key_id, row.project, row.created
        both = opened(self._master, row.wrapped, "vault", row.project)
        self._token_key, self._index_key = both[:KEY_BYTES], both[KEY_BYTES:]

    def _current(self, connection: sql.Connection) -> None:
        """Follow an exchange of the master key by another process."""
        if connection.execute(sql.select(FACTS.c.key_id)).scalar_one() != self._key_id:
            self._unlock(connection)

    def token(self, entity: str, value: str) -> str:
        """Return the token of a value: 16 characters a-z and 2-7. Two writings of one value have one token."""
        return base64.b32encode(self._digest(entity, value)[: self._token_bytes]).decode().rstrip("=").lower()

    @property
    def identity(self) -> str:
        """What tells this vault from others: tokens of two vaults differ, and so do the datasets that hold them. An exchanged key changes nothing."""
        return self.token("vault", "identity")

    def _digest(self, entity: str, value: str) -> bytes:
        return hmac.digest(self._token_key, f"{entity}\0{normalise(value)}".encode(), hashlib.sha256)

    def subject_id(self, subject: str | None) -> str:
        """Return the keyed name under which a person stands in the vault; None is everybody whom nothing names."""
        return hmac.new(self._index_key, f"subject\0{subject}".encode() if subject is not None else b"nobody", hashlib.sha256).hexdigest()[:32]

    def keep(self, entries: Iterable[Entry], *, subject: str | None) -> int:
        """Keep originals of one person; see `keep_all`."""
        return self.keep_all({subject: entries})

    def keep_all(self, entries: Mapping[str | None, Iterable[Entry]]) -> int:
        """Keep originals by person, durably and all or none; return how many were new.

        Raises PrivacyError if a token stands for two values: with 80 bits once in 10^12 vaults of a million values.
        """
        found = {subject: list(dict.fromkeys(items)) for subject, items in entries.items()}
        rows: list[dict[str, Any]] = []
        if not any(found.values()):
            return 0
        with guarded(self.folder / FILE, "write to"), writing(self._engine) as connection:
            self._current(connection)
            known = self._known(connection, [token for items in found.values() for token, _, _ in items])
            for subject, items in found.items():
                name = self.subject_id(subject)
                key = self._subject_key(connection, name)
                for token, entity, value in items:
                    check = self._digest(entity, value)[self._token_bytes :]
                    if any(not hmac.compare_digest(other, check) for _, other in known.get(token, ())):
                        raise PrivacyError(f"two values of {entity} have one token; nothing was kept\n    -> this needs a vault with longer tokens; report it")
                    if all(owner != name for owner, _ in known.get(token, ())):
                        closed = sealed(key, value.encode(), self.project, entity, name, token)
                        rows.append({"token": token, "subject": name, "entity": entity, "check": check, "sealed": closed})
                        known.setdefault(token, []).append((name, check))
            if rows:
                connection.execute(sql.insert(ORIGINALS), rows)
        return len(rows)

    def _known(self, connection: sql.Connection, tokens: Sequence[str]) -> dict[str, list[tuple[str, bytes]]]:
        known: dict[str, list[tuple[str, bytes]]] = {}
        for start in range(0, len(tokens), 500):
            part = tokens[start : start + 500]
            for row in connection.execute(sql.select(ORIGINALS.c.token, ORIGINALS.c.subject, ORIGINALS.c["check"]).where(ORIGINALS.c.token.in_(part))):
                known.setdefault(row[0], []).append((row[1], row[2]))
        return known

    def _subject_key(self, connection: sql.Connection, name: str) -> bytes:
        wrapped = connection.execute(sql.select(SUBJECTS.c.wrapped).where(SUBJECTS.c.subject == name)).scalar()
        if wrapped is not None:
            return opened(self._master, wrapped, "subject", self.project, name)
        key = os.urandom(KEY_BYTES)
        connection.execute(sql.insert(SUBJECTS), {"subject": name, "wrapped": sealed(self._master, key, "subject", self.project, name)})
        return key

    def reveal(self, tokens: Sequence[str], *, purpose: str, name: str, record: Callable[[Event], Any]) -> list[Original]:
        """Return what tokens stand for. Who asks and why is recorded first; if it cannot be recorded, nothing is revealed.

        A token that the vault does not know, or whose person was forgotten, is left out. Raises InputError for an empty purpose or name.
        """
        actor, why = checked_name(name, key="name"), checked_purpose(purpose)
        wanted = list(dict.fromkeys(token.lower() for token in tokens))
        record(Event("access", actor, now(), {"action": "vault reveal", "purpose": why, "tokens": len(wanted)}, body={"tokens": wanted}))
        found: dict[str, Original] = {}
        with guarded(self.folder / FILE, "read"), self._engine.connect() as connection, connection.begin():
            self._current(connection)
            for token in wanted:
                row = connection.execute(sql.select(ORIGINALS).where(ORIGINALS.c.token == token).limit(1)).first()
                if row is not None:
                    found[token] = Original(token, row.entity, self._open(connection, row))
        return list(found.values())

    def _open(self, connection: sql.Connection, row: sql.Row[Any]) -> str:
        wrapped = connection.execute(sql.select(SUBJECTS.c.wrapped).where(SUBJECTS.c.subject == row.subject)).scalar_one()
        key = opened(self._master, wrapped, "subject", self.project, row.subject)
        return opened(key, row.sealed, self.project, row.entity, row.subject, row.token).decode()

    def rotate(self, *, name: str, record: Callable[[Event], Any], reencrypt: bool = False) -> int:
        """Exchange the master key and wrap every key below it anew; with `reencrypt` every original gets a new subject key, too.

        Returns how many keys were wrapped. Interrupted at any point, the vault opens with one of the two key files, and the next
        opening finishes what was begun.
        """
        actor = checked_name(name, key="name")
        record(Event("access", actor, now(), {"action": "vault rotate", "key": self._key_id, "reencrypt": reencrypt}))
        with guarded(self.folder / FILE, "write to"), writing(self._engine) as connection:
            self._current(connection)
            new = self._key_file.prepare()
            rows = connection.execute(sql.select(SUBJECTS)).all()
            for row in rows:
                key = opened(self._master, row.wrapped, "subject", self.project, row.subject)
                fresh = os.urandom(KEY_BYTES) if reencrypt else key
                if reencrypt:
                    self._reencrypt(connection, row.subject, key, fresh)
                wrapped = sealed(new, fresh, "subject", self.project, row.subject)
                connection.execute(sql.update(SUBJECTS).where(SUBJECTS.c.subject == row.subject).values(wrapped=wrapped))
            wrapped = sealed(new, self._token_key + self._index_key, "vault", self.project)
            connection.execute(sql.update(FACTS).values(key_id=id_of(new), wrapped=wrapped))
        self._key_file.finish()
        with guarded(self.folder / FILE, "read"), self._engine.connect() as connection, connection.begin():
            self._unlock(connection)
        return len(rows) + 1

    def _reencrypt(self, connection: sql.Connection, subject: str, old: bytes, new: bytes) -> None:
        for row in connection.execute(sql.select(ORIGINALS).where(ORIGINALS.c.subject == subject)).all():
            value = opened(old, row.sealed, self.project, row.entity, subject, row.token)
            place = (ORIGINALS.c.token == row.token) & (ORIGINALS.c.subject == subject)
            connection.execute(sql.update(ORIGINALS).where(place).values(sealed=sealed(new, value, self.project, row.entity, subject, row.token)))

    def state(self) -> VaultState:
        """Return counts and names of keys."""
        with guarded(self.folder / FILE, "read"), self._engine.connect() as connection, connection.begin():
            counts = [connection.execute(sql.select(sql.func.count()).select_from(table)).scalar_one() for table in (SUBJECTS, ORIGINALS)]
        return VaultState(self.project, self._key_id, self._created, *counts)

    def remove(self, subject: str | None) -> tuple[list[bytes], list[str]]:
        """Destroy a person's key and originals; return the bytes that must be nowhere any more, and the originals for a search elsewhere."""
        name = self.subject_id(subject)
        with guarded(self.folder / FILE, "write to"), writing(self._engine) as connection:
            self._current(connection)
            rows = connection.execute(sql.select(ORIGINALS).where(ORIGINALS.c.subject == name)).all()
            wrapped = connection.execute(sql.select(SUBJECTS.c.wrapped).where(SUBJECTS.c.subject == name)).scalar()
            if wrapped is None:
                remedy = "check the subject: it is the value of the subject's field as it stood in the source"
                raise PrivacyError(f"the vault keeps nothing of this person\n    -> {remedy}")
            values = [self._open(connection, row) for row in rows]
            connection.execute(sql.delete(ORIGINALS).where(ORIGINALS.c.subject == name))
            connection.execute(sql.delete(SUBJECTS).where(SUBJECTS.c.subject == name))
        return [wrapped, name.encode(), *(row.sealed for row in rows)], values

    @property
    def engine(self) -> sql.Engine:
        """The database, for the erasure that has to overwrite its files."""
        return self._engine


@dataclass(slots=True)
class SubjectTokens:
    """The tokens of one record, noted so that its originals can be kept before anything is written elsewhere."""

    vault: Vault
    entries: list[Entry] = field(default_factory=list)

    def token(self, entity: str, value: str) -> str:
        """Return the token of a value and note the value."""
        token = self.vault.token(entity, value)
        self.entries.append((token, entity, value))
        return token
