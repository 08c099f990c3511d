r"""What an entry of the log is: one line of JSON that everybody may read, and what the log says of itself.

The envelope's bytes are what the Merkle tree hashes. They are canonical JSON in ASCII: sorted keys, no spaces, every
character outside printable ASCII escaped as \uXXXX, so that a line end, a terminal sequence or a change of writing
direction in somebody's name is text in the log and never a line or a colour. Keys::

    actor       who
    commitment  HMAC-SHA-256 of the body under a random salt that is encrypted with it; null without a body
    facts       what everybody may see: digests, names, numbers
    index       number of the entry, from 0: the order of the log, whatever the clocks said
    kind        what happened
    sealed      SHA-256 over the identifier of the body's key and the encrypted body; null without a body
    subject     a keyed hash that stands for the person whom the body is about; null if it is about nobody
    time        when, as the event said it
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from metier.errors import LedgerError
from metier.events import Event

__all__ = ["Entry", "LogFacts", "ascii_json", "commitment", "encode_body", "envelope", "read_envelope", "sealed_digest", "validate"]

ENVELOPE_BYTES = 1 << 20
"""Longest envelope. Facts are digests and numbers; what is longer belongs into the body."""
BODY_BYTES = 64 << 20
"""Longest body."""

_KEYS = frozenset({"actor", "commitment", "facts", "index", "kind", "sealed", "subject", "time"})
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")).encode


def ascii_json(value: Any) -> bytes:
    r"""Return the one form of `value` in printable ASCII. Raises as `metier.digest.canonical_json` does.

    DEL is the one control character that JSON leaves alone; it is escaped, too, for it can only stand inside a string.
    """
    return _encode(value).replace("\x7f", "\\u007f").encode("ascii")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it is read back. `envelope` is what was hashed, `leaf_hash` its hash in hexadecimal."""

    index: int
    kind: str
    actor: str
    time: str
    facts: Mapping[str, Any]
    subject: str | None
    commitment: str | None
    envelope: bytes
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What the log says of itself. Its digest is the log's origin, which every head signs: none of it can be changed later."""

    public_key: str
    body_key: str
    created: str
    nonce: str

    @property
    def encoded(self) -> bytes:
        """The facts as they are stored and hashed."""
        facts = {"body_key": self.body_key, "created": self.created, "format": 1, "nonce": self.nonce, "public_key": self.public_key}
        return ascii_json(facts)

    @property
    def origin(self) -> str:
        """The log's name."""
        return f"metier/ledger/{sha256(self.encoded).hexdigest()[:32]}"

    @classmethod
    def parse(cls, data: bytes) -> LogFacts:
        """Read stored facts. Raises LedgerError if they are not exactly of the form."""
        try:
            value = json.loads(data)
            found = cls(*(str(value[key]) for key in ("public_key", "body_key", "created", "nonce")))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise LedgerError("what the log says of itself cannot be read") from None
        if found.encoded != bytes(data):
            raise LedgerError("what the log says of itself was changed, or was written by a newer Metier")
        return found


def validate(event: Event) -> None:
    """Raise LedgerError unless the event can be kept: the time may be anything, texts have to be texts, facts and body JSON."""
    for name in ("kind", "actor", "time"):
        if not isinstance(getattr(event, name), str):
            raise LedgerError(f"the event's {name} is not a text: it cannot be kept in the log")
    if event.subject is not None and not isinstance(event.subject, str):
        raise LedgerError("the event's subject is not a text: it cannot be kept in the log")
    facts = _encoded(event.facts, "facts")
    if len(facts) + 6 * (len(event.actor) + len(event.time)) > ENVELOPE_BYTES - 1024:
        raise LedgerError(f"the event's facts are too long for the log (at most {ENVELOPE_BYTES} bytes)\n    -> what is long belongs into the event's body")


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Return the body as it is committed to and encrypted. Raises LedgerError if it has no JSON form or is too long."""
    encoded = _encoded(body, "body")
    if len(encoded) > BODY_BYTES:
        raise LedgerError(f"the event's body is too long for the log (at most {BODY_BYTES} bytes)")
    return encoded


def commitment(salt: bytes, body: bytes) -> str:
    """Return what the envelope says of a body: without the salt, which is encrypted with it, nobody can test a guess."""
    return hmac.new(salt, body, sha256).hexdigest()


def sealed_digest(key: str, sealed: bytes) -> str:
    """Return what binds the stored ciphertext to its envelope, so that a change of it is seen without any secret."""
    return sha256(key.encode() + b"\n" + sealed).hexdigest()


def envelope(event: Event, index: int, *, subject: str | None, committed: str | None, sealed: str | None) -> bytes:
    """Return the envelope of a valid event."""
    return ascii_json(
        {
            "actor": event.actor,
            "commitment": committed,
            "facts": dict(event.facts),
            "index": index,
            "kind": event.kind,
            "sealed": sealed,
            "subject": subject,
            "time": event.time,
        }
    )


def read_envelope(data: bytes, index: int) -> dict[str, Any]:
    """Return an envelope's fields. Raises LedgerError unless it is one, and that of this entry."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise LedgerError(f"entry {index} is not JSON") from None
    if not isinstance(value, dict) or value.keys() != _KEYS or not isinstance(value["facts"], dict):
        raise LedgerError(f"entry {index} is not an entry of the log")
    if type(value["index"]) is not int or value["index"] != index:
        raise LedgerError(f"where entry {index} belongs stands entry {value['index']!r}: entries were removed, added or moved")
    return value


def _encoded(value: Mapping[str, Any], name: str) -> bytes:
    try:
        return ascii_json(dict(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerError(f"the event's {name} cannot be kept in the log: {error}\n    -> use texts, whole and finite numbers, lists and mappings") from None
