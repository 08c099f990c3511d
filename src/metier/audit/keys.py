"""The log's keys: one that signs (Ed25519) and one that encrypts bodies (256 bits), in a folder that only the owner may open.

::

    <folder>/ledger/            0700
        signing-key.pem         0600  PKCS8
        body-key                0600  32 bytes, base64
        public-key.pem          what everybody may have

They are made on first use, all at once, and never again: a log whose keys are gone is refused, not continued with new ones.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import os
import tempfile
import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from metier.audit.notes import PublicKey
from metier.errors import LedgerError, StoreError
from metier.store import remove_folder, write_atomically

__all__ = ["PUBLIC_KEY", "Keys"]

_SIGNING, _BODY, PUBLIC_KEY = "signing-key.pem", "body-key", "public-key.pem"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class _Loaded:
    signing: Ed25519PrivateKey
    public: PublicKey
    body: bytes


class Keys:
    """The keys of one folder. They are made when one is first needed, unless a log is there that was written with others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        self._loaded: _Loaded | None = None
        self._guard = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Keys:
        """Return the keys of a folder. Raises LedgerError if some are missing, unreadable, or open to others; none at all is no fault yet."""
        keys = cls(folder)
        if keys.exist:
            keys._get()
        return keys

    def __repr__(self) -> str:
        return f"Keys({str(self.folder)!r})"

    @property
    def exist(self) -> bool:
        """Whether keys have been made here."""
        return self.folder.exists()

    @property
    def public(self) -> PublicKey:
        """The public half of the signing key."""
        return self._get().public

    @property
    def public_pem(self) -> bytes:
        """The public key as its PEM file."""
        return self.public.pem

    @property
    def key_id(self) -> str:
        """SHA-256 of the public key, 64 hexadecimal digits."""
        return self.public.key_id

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032) of data, 64 bytes."""
        return self._get().signing.sign(data)

    @property
    def body_key(self) -> bytes:
        """The key that encrypts the keys of the bodies, 32 bytes. Never logged, never in a bundle."""
        return self._get().body

    @property
    def body_key_id(self) -> str:
        """A keyed hash by which the right body key is known, 32 hexadecimal digits."""
        return self._derived("body key", "").hex()[:32]

    def token(self, subject: str) -> str:
        """Return what stands for a person in the log, 32 hexadecimal digits: only who has the body key can tell who it is."""
        return self._derived("subject", subject).hex()[:32]

    def _derived(self, purpose: str, text: str) -> bytes:
        return hmac.new(self._get().body, f"metier audit: {purpose}\n{text}".encode("utf-8", "surrogatepass"), sha256).digest()

    def _get(self) -> _Loaded:
        with self._guard:
            if self._loaded is None:
                if not self.exist:
                    self._make()
                self._loaded = self._load()
            return self._loaded

    def _make(self) -> None:
        """Write all three files aside and rename their folder into place: there are either all keys or none."""
        temporary: Path | None = None
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder.parent, os.O_RDONLY)
            try:
                # Two processes that begin at the same time get the same keys.
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.exist:
                    return
                temporary = Path(tempfile.mkdtemp(prefix=".ledger.", dir=self.folder.parent))
                signing = Ed25519PrivateKey.generate()
                write_atomically(temporary / _SIGNING, signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
                write_atomically(temporary / _BODY, base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n", mode=0o600)
                write_atomically(temporary / PUBLIC_KEY, PublicKey(signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).pem)
                temporary.rename(self.folder)
                os.fsync(lock)
            finally:
                os.close(lock)
        except (OSError, StoreError) as error:
            raise LedgerError(f"cannot make the log's keys in {self.folder}: {error}\n    -> check that the folder may be written") from error
        finally:
            if temporary is not None:
                remove_folder(temporary)

    def _load(self) -> _Loaded:
        self._private(self.folder)
        try:
            signing = load_pem_private_key(self._read(_SIGNING), password=None)
            body = base64.b64decode(self._read(_BODY).strip(), validate=True)
        except (ValueError, TypeError):
            raise self._fault("a file of it does not hold the key it should") from None
        if not isinstance(signing, Ed25519PrivateKey) or len(body) != _KEY_BYTES:
            raise self._fault("a file of it does not hold the key it should")
        public = PublicKey(signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        if self._read(PUBLIC_KEY, secret=False) != public.pem:
            raise self._fault(f"{PUBLIC_KEY} is not the public half of {_SIGNING}")
        return _Loaded(signing, public, body)

    def _read(self, name: str, *, secret: bool = True) -> bytes:
        path = self.folder / name
        if not path.is_file():
            raise self._fault(f"{name} is missing")
        if secret:
            self._private(path)
        try:
            return path.read_bytes()
        except OSError as error:
            raise self._fault(f"{name} cannot be read: {error.strerror}") from None

    def _private(self, path: Path) -> None:
        if path.stat().st_mode & 0o077:
            mode = "700" if path.is_dir() else "600"
            raise LedgerError(
                f"others than the owner may open {path}, which holds keys\n    -> chmod {mode} {path}; if it was open for long, take the keys for known"
            )

    def _fault(self, what: str) -> LedgerError:
        remedy = "restore the folder from its backup; without its keys the log can be read and not continued"
        return LedgerError(f"the log's keys in {self.folder} cannot be used: {what}\n    -> {remedy}")
