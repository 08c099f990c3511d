"""Signed statements: an in-toto Statement (https://in-toto.io/Statement/v1) in a DSSE envelope (secure-systems-lab/dsse, v1)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from metier.audit.entries import ascii_json
from metier.audit.notes import PublicKey
from metier.errors import LedgerError

__all__ = ["PAYLOAD_TYPE", "STATEMENT_TYPE", "make_statement", "open_envelope", "seal"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def make_statement(files: Mapping[str, str], statement: Mapping[str, Any]) -> bytes:
    """Return a statement over files (name to SHA-256), with the predicateType and the predicate of `statement`. Raises LedgerError without them."""
    if not isinstance(statement.get("predicateType"), str) or not isinstance(statement.get("predicate"), Mapping):
        raise LedgerError("a statement needs a predicateType (text) and a predicate (mapping)")
    if unknown := statement.keys() - {"predicateType", "predicate"}:
        raise LedgerError(f"a statement holds predicateType and predicate; the rest is written here: {', '.join(sorted(map(str, unknown)))}")
    subject = [{"digest": {"sha256": digest}, "name": name} for name, digest in sorted(files.items())]
    return ascii_json({"_type": STATEMENT_TYPE, "subject": subject, "predicateType": statement["predicateType"], "predicate": dict(statement["predicate"])})


def seal(payload: bytes, sign: Callable[[bytes], bytes], key: PublicKey) -> bytes:
    """Return the envelope of a payload, signed."""
    return _envelope(payload, key, sign(_encoding(payload)))


def open_envelope(envelope: bytes, key: PublicKey) -> bytes:
    """Return the payload of an envelope. Raises LedgerError unless the key signed it and every byte is where it belongs."""
    try:
        value = json.loads(envelope)
        payload, signature = (base64.b64decode(text, validate=True) for text in (value["payload"], value["signatures"][0]["sig"]))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise LedgerError("is not a DSSE envelope with one signature") from None
    if not key.signed(signature, _encoding(payload)):
        raise LedgerError(f"is not signed by the key {key.key_id}, or was changed")
    if _envelope(payload, key, signature) != envelope:
        raise LedgerError("was changed")
    return payload


def _envelope(payload: bytes, key: PublicKey, signature: bytes) -> bytes:
    signatures = [{"keyid": key.key_id, "sig": base64.b64encode(signature).decode()}]
    return ascii_json({"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": signatures})


def _encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding of type and payload."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
