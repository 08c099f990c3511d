"""The master key in its file, and the wrapping of the keys below it (AES-256-GCM, NIST SP 800-38D)."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from metier.digest import canonical_json
from metier.errors import PrivacyError
from metier.store import write_atomically

__all__ = ["KEY_BYTES", "KeyFile", "make_key", "opened", "sealed"]

KEY_BYTES = 32
_NONCE_BYTES = 12


def sealed(key: bytes, content: bytes, *context: str) -> bytes:
    """Return nonce and ciphertext of `content`; it opens only with the same key and the same context."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, canonical_json(list(context)))


def opened(key: bytes, content: bytes, *context: str) -> bytes:
    """Return what was sealed. Raises PrivacyError if key, context or content is another one."""
    try:
        return AESGCM(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], canonical_json(list(context)))
    except InvalidTag:
        raise PrivacyError("an entry of the vault does not open: it was changed, or belongs to another key\n    -> restore the vault from its backup") from None


def make_key(path: Path) -> None:
    """Write a new master key, readable by its owner only. Raises PrivacyError if the file is there already."""
    if path.exists():
        raise PrivacyError(f"{path} is there already; a key is never written over\n    -> name another file")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, os.urandom(KEY_BYTES), mode=0o600)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file of the master key, and the one that lies beside it while the key is exchanged."""

    path: Path

    @property
    def next(self) -> Path:
        """Where a new key waits until the vault is under it."""
        return self.path.with_name(self.path.name + ".next")

    def read(self) -> bytes:
        """Return the key. Raises PrivacyError if there is none or it has another length."""
        return _read(self.path)

    def fitting(self, key_id: str) -> bytes:
        """Return the key with this id; an exchange that was interrupted after the vault had changed is finished first.

        Raises PrivacyError if neither file holds it.
        """
        if self.path.exists():
            key = _read(self.path)
            if hmac.compare_digest(id_of(key), key_id):
                self.next.unlink(missing_ok=True)
                return key
        if self.next.exists():
            key = _read(self.next)
            if hmac.compare_digest(id_of(key), key_id):
                self.finish()
                return key
        if not self.path.exists():
            remedy = "restore it from its backup; without it nothing of the vault opens"
            raise PrivacyError(f"the vault's master key is missing: there is no {self.path}\n    -> {remedy}")
        raise PrivacyError(f"{self.path} holds another key than the vault's\n    -> give the file of the key that the vault was made with")

    def prepare(self) -> bytes:
        """Write a new key beside the old one and return it."""
        write_atomically(self.next, os.urandom(KEY_BYTES), mode=0o600)
        return _read(self.next)

    def finish(self) -> None:
        """Put the new key in the place of the old one. What is left of the old one on the disk is the file system's."""
        write_atomically(self.path, _read(self.next), mode=0o600)
        self.next.unlink(missing_ok=True)


def id_of(key: bytes) -> str:
    """Return 64 bits by which a master key is told from others; it says nothing about the key."""
    return hmac.new(key, b"metier vault key id", hashlib.sha256).hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise PrivacyError(f"the key file {path} cannot be read: {error.strerror}\n    -> check its path and its permissions") from None
    if len(key) != KEY_BYTES:
        raise PrivacyError(f"{path} has {len(key)} bytes, a master key has {KEY_BYTES}\n    -> give the vault's own key file")
    return key
