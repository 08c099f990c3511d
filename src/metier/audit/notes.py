"""Signed heads: what the log was at one moment, as a checkpoint that anybody with the public key can check.

The text is that of C2SP's tlog-checkpoint inside a signed-note (https://c2sp.org/tlog-checkpoint), with two lines of our own::

    metier/ledger/<32 hexadecimal digits>     origin: the digest of what the log says of itself (see metier.audit.entries)
    1042                                      size: number of entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       root
    previous 64-hexadecimal-digits            SHA-256 of the last stored head before this one, zeros for the first
    time 2026-01-31T12:00:00.000000Z          when it was signed, by this machine's clock

    — metier/ledger/<...> <base64 of 4 bytes of key hash and 64 bytes of Ed25519 signature>
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from metier.errors import LedgerError

__all__ = ["NO_HEAD", "PublicKey", "SignedHead", "sign_head"]

NO_HEAD = "0" * 64
"""What the first head names as the one before it."""

_ED25519 = b"\x01"
"""The algorithm's number in a signed note's key hash (C2SP signed-note)."""

_NOTE = re.compile(
    r"(?P<text>(?P<origin>metier/ledger/[0-9a-f]{32})\n(?P<size>0|[1-9][0-9]{0,17})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"previous (?P<previous>[0-9a-f]{64})\ntime (?P<time>[0-9TZ:.-]{20,40})\n)\n"
    r"\u2014 (?P=origin) (?P<signature>[A-Za-z0-9+/]{91}=)\n"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: 32 raw bytes."""

    raw: bytes

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Read a PEM file. Raises LedgerError unless it is, byte for byte, the PEM form of an Ed25519 key."""
        try:
            key = load_pem_public_key(pem)
        except (ValueError, TypeError, binascii.Error):
            raise LedgerError("this is no public key in PEM form\n    -> give the file public-key.pem of the log") from None
        if not isinstance(key, Ed25519PublicKey):
            raise LedgerError("the public key is not an Ed25519 key\n    -> give the file public-key.pem of the log")
        found = cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        if found.pem != pem:
            raise LedgerError("the public key is not written as its PEM form is: something in the file was changed")
        return found

    @property
    def pem(self) -> bytes:
        """The key in PEM form."""
        return Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """SHA-256 of the raw key, 64 hexadecimal digits: what a stranger is told to compare."""
        return sha256(self.raw).hexdigest()

    def signed(self, signature: bytes, data: bytes) -> bool:
        """Say whether this is the key's signature of the data."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SignedHead:
    """Size and root of the log at one moment. `note` is the whole signed text; the rest is read from it."""

    origin: str
    size: int
    root: bytes
    previous: str
    time: str
    note: str

    @classmethod
    def parse(cls, note: str) -> SignedHead:
        """Read a note without checking its signature. Raises LedgerError if it is not exactly of the form."""
        match = _NOTE.fullmatch(note)
        if match is None:
            raise LedgerError("this is no signed head of a Metier log")
        root, signature = base64.b64decode(match["root"]), base64.b64decode(match["signature"])
        # The last characters of base64 hold spare bits: only one way of writing them is taken.
        if _base64(root) != match["root"] or _base64(signature) != match["signature"]:
            raise LedgerError("the signed head is not written in canonical base64: something in it was changed")
        return cls(match["origin"], int(match["size"]), root, match["previous"], match["time"], note)

    @property
    def digest(self) -> str:
        """SHA-256 of the note, as the next stored head names it."""
        return sha256(self.note.encode()).hexdigest()

    def check(self, key: PublicKey) -> None:
        """Raise LedgerError unless the key signed this head."""
        text, _, line = self.note.partition("\n\n")
        blob = base64.b64decode(line.rsplit(" ", 1)[1])
        if blob[:4] != _key_hash(self.origin, key):
            raise LedgerError(f"the head of {self.size} entries was signed by another key than {key.key_id[:16]}")
        if not key.signed(blob[4:], f"{text}\n".encode()):
            raise LedgerError(f"the signature of the head of {self.size} entries is wrong")


def sign_head(sign: Callable[[bytes], bytes], key: PublicKey, *, origin: str, size: int, root: bytes, previous: str, time: str) -> SignedHead:
    """Return the signed head of a log; `sign` is the private half of `key`."""
    text = f"{origin}\n{size}\n{_base64(root)}\nprevious {previous}\ntime {time}\n"
    blob = _key_hash(origin, key) + sign(text.encode())
    return SignedHead(origin, size, root, previous, time, f"{text}\n\u2014 {origin} {_base64(blob)}\n")


def _key_hash(name: str, key: PublicKey) -> bytes:
    """The first four bytes that tell keys apart in a signed note."""
    return sha256(name.encode() + b"\n" + _ED25519 + key.raw).digest()[:4]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
