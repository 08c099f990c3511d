"""Bodies of entries: encrypted under a key of the subject's own, so that a person can be erased and the log still verifies.

AES-256-GCM (NIST SP 800-38D). Each subject has data keys of 256 bits, wrapped by the body key; a body is sealed together with
the salt of its commitment, so that after the data key is gone nobody can even test a guess. Bodies about nobody share a key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sql
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from metier.audit.entries import commitment
from metier.audit.keys import Keys
from metier.audit.statements import Statements
from metier.audit.tables import KEYS
from metier.errors import LedgerError

__all__ = ["NOBODY", "SALT_BYTES", "Body", "DataKey", "Sealer", "key_name"]

NOBODY = ""
"""The subject of bodies that are about nobody in particular."""
SALT_BYTES = 32
_NONCE_BYTES = 12
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was opened, with the salt that proves that it is the one committed to: see `metier.audit.entries.commitment`."""

    value: Mapping[str, Any]
    salt: bytes
    encoded: bytes


@dataclass(frozen=True, slots=True, repr=False)
class DataKey:
    """A subject's key, ready for use."""

    name: str
    cipher: AESGCM


def key_name(subject: str, wrapped: bytes) -> str:
    """Return the identifier of a wrapped key: its digest, so that a changed row is seen without any secret."""
    return sha256(subject.encode() + b"\n" + wrapped).hexdigest()


class Sealer:
    """Seals and opens bodies of one log."""

    def __init__(self, keys: Keys, origin: str, statements: Statements) -> None:
        self._keys = keys
        self._statements = statements
        self._origin = origin.encode()
        self._known: dict[str, DataKey] = {}

    def data_keys(self, connection: sql.Connection, subjects: Iterable[str]) -> dict[str, DataKey]:
        """Return each subject's present key, inside the writing transaction; who has none gets one."""
        wanted = set(subjects)
        if not wanted:
            return {}
        rows = self._statements.keys_of(connection, wanted)
        found = {subject: self._unwrap(name, subject, wrapped) for name, subject, wrapped in rows}
        new = []
        for subject in wanted - found.keys():
            plain, nonce = AESGCM.generate_key(256), os.urandom(_NONCE_BYTES)
            wrapped = nonce + AESGCM(self._keys.body_key).encrypt(nonce, plain, self._origin + subject.encode())
            name = key_name(subject, wrapped)
            new.append({"id": name, "subject": subject, "wrapped": wrapped})
            # Not remembered until it is read back: the transaction may still be undone.
            found[subject] = DataKey(name, AESGCM(plain))
        if new:
            self._statements.insert_keys(connection, *new)
        return found

    def seal(self, index: int, key: DataKey, salt: bytes, body: bytes) -> bytes:
        """Return salt and body encrypted for one entry of this log."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + key.cipher.encrypt(nonce, salt + body, self._place(index))

    def open(self, index: int, key: DataKey, sealed: bytes, committed: str) -> Body:
        """Return the body of an entry. Raises LedgerError if it is not what the entry committed to."""
        try:
            plain = key.cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._place(index))
        except (InvalidTag, ValueError):
            raise LedgerError(f"the body of entry {index} was changed after it was written") from None
        salt, encoded = plain[:SALT_BYTES], plain[SALT_BYTES:]
        if commitment(salt, encoded) != committed:
            raise LedgerError(f"the body of entry {index} is not the one that the entry committed to")
        return Body(json.loads(encoded), salt, encoded)

    def read_key(self, connection: sql.Connection, name: str) -> DataKey | None:
        """Return a data key by its identifier, None if it was destroyed."""
        row = connection.execute(sql.select(KEYS.c.id, KEYS.c.subject, KEYS.c.wrapped).where(KEYS.c.id == name)).one_or_none()
        return None if row is None else self._unwrap(*row)

    def forget(self) -> None:
        """Drop every data key from memory."""
        self._known.clear()

    def _unwrap(self, name: str, subject: str, wrapped: bytes) -> DataKey:
        if (known := self._known.get(name)) is not None:
            return known
        try:
            plain = AESGCM(self._keys.body_key).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], self._origin + subject.encode())
        except (InvalidTag, ValueError):
            raise LedgerError("a data key of the log was changed, or the body key is not the one that it was wrapped by") from None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[name] = DataKey(name, AESGCM(plain))
        return self._known[name]

    def _place(self, index: int) -> bytes:
        return self._origin + b"\n" + str(index).encode()
