"""Proofs that entries are in the log, for somebody who holds neither the log nor a secret: a head and each entry's path to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from metier.audit.entries import Entry, ascii_json, read_envelope
from metier.audit.merkle import HASH_BYTES, is_included, leaf_hash
from metier.audit.notes import PublicKey, SignedHead
from metier.errors import LedgerError

__all__ = ["PROOF", "check_proof", "check_proofs", "encode_proof", "encode_proofs"]

PROOF = "metier-proof/1"


def encode_proofs(entries: Sequence[Entry], head: SignedHead, inclusion: Callable[[int, int], list[bytes]]) -> bytes:
    """Return the proofs of entries under a head, as JSON in one possible form."""
    return ascii_json([_proof(entry, head, inclusion) for entry in entries])


def encode_proof(entry: Entry, head: SignedHead, key: PublicKey, inclusion: Callable[[int, int], list[bytes]]) -> bytes:
    """Return a file that proves one entry and verifies on its own."""
    return ascii_json({"format": PROOF, "head": head.note, "proof": _proof(entry, head, inclusion), "public_key": key.pem.decode()}) + b"\n"


def check_proofs(data: bytes, head: SignedHead) -> list[dict[str, Any]]:
    """Check proofs under a head whose signature has been checked and return the fields of their entries. Raises LedgerError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise LedgerError("is not JSON") from None
    if not isinstance(value, list):
        raise LedgerError("is not a list of proofs")
    if ascii_json(value) != data:
        raise LedgerError("was changed")
    return [_check(item, head) for item in value]


def check_proof(data: bytes, key: PublicKey | None = None) -> tuple[SignedHead, PublicKey, dict[str, Any]]:
    """Check the file of one proof and return its head, its key and the entry's fields. Raises LedgerError."""
    try:
        value = json.loads(data)
        public, head = PublicKey.from_pem(value["public_key"].encode()), SignedHead.parse(value["head"])
        same = ascii_json({"format": PROOF, "head": head.note, "proof": value["proof"], "public_key": public.pem.decode()}) + b"\n" == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LedgerError(f"the file is not a proof ({PROOF})") from None
    if not same:
        raise LedgerError("the file of the proof was changed")
    if key is not None and key != public:
        raise LedgerError(f"the proof was signed with the key {public.key_id}, not with {key.key_id}")
    head.check(public)
    return head, public, _check(value["proof"], head)


def _proof(entry: Entry, head: SignedHead, inclusion: Callable[[int, int], list[bytes]]) -> dict[str, Any]:
    if entry.index >= head.size:
        raise LedgerError(f"entry {entry.index} is not under the head of {head.size} entries")
    path = [base64.b64encode(item).decode() for item in inclusion(entry.index, head.size)]
    return {"envelope": json.loads(entry.envelope), "index": entry.index, "path": path}


def _check(value: Any, head: SignedHead) -> dict[str, Any]:
    """Check one proof. Its envelope is hashed in its one canonical form, so that its text may stand in the proof as it is."""
    try:
        index, texts, envelope = value["index"], value["path"], ascii_json(value["envelope"])
        path = [base64.b64decode(text, validate=True) for text in texts]
        canonical = [base64.b64encode(item).decode() for item in path] == texts
    except (KeyError, TypeError, ValueError, RecursionError):
        raise LedgerError("holds something that is not a proof") from None
    if type(index) is not int or value.keys() != {"envelope", "index", "path"} or not canonical or any(len(item) != HASH_BYTES for item in path):
        raise LedgerError("holds something that is not a proof")
    fields = read_envelope(envelope, index)
    if not is_included(leaf_hash(envelope), index, head.size, path, head.root):
        raise LedgerError(f"the path of entry {index} does not lead to the root of the head of {head.size} entries: the entry or the path was changed")
    return fields
