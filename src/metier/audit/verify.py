"""Verification by a stranger: an exported log, a bundle or a proof, with the public key and nothing else.

    python -m metier.audit.verify PATH [--public-key FILE | --key-id HEX] [--head FILE] [--json]

needs the standard library, `cryptography`, and of this package `metier/__init__.py`, `errors.py`, `digest.py`, `events.py` and `audit/`.
It ends with 0 if everything verifies, 1 if not (and says the first thing that fails), 2 if there is nothing to verify.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metier.audit.bundle_check import check_bundle
from metier.audit.logfile import check_log
from metier.audit.notes import PublicKey, SignedHead
from metier.audit.proofs import PROOF, check_proof
from metier.audit.verdict import Verdict, What
from metier.audit.witness import read_heads
from metier.errors import Fault, InputError, LedgerError, MetierError

__all__ = ["main", "pin", "read_key", "read_known_heads", "verify"]

_PROOF_START = f'{{"format":"{PROOF}"'.encode()
_PROOF_BYTES = 4 << 20
_KEY_ID = re.compile(r"[0-9a-f]{16,64}")


def verify(path: Path, *, key: PublicKey | None = None, key_id: str | None = None, heads: Sequence[SignedHead] = ()) -> Verdict:
    """Check an exported log, a bundle or a proof. What is wrong with it is the verdict's fault.

    `key`, or the first digits of its SHA-256 in `key_id`, pins who may have signed; `heads` are earlier heads that a log has to continue.
    Raises InputError if there is nothing at `path`, or the pin cannot be one.
    """
    if key_id is not None and not _KEY_ID.fullmatch(key_id):
        raise InputError(Fault("a key is named by at least 16 hexadecimal digits of its SHA-256", key="--key-id"))
    what: What = "bundle" if path.is_dir() else "log"
    try:
        if path.is_dir():
            verdict = check_bundle(path, key)
        else:
            with path.open("rb") as stream:
                if stream.read(len(_PROOF_START)) == _PROOF_START:
                    what = "proof"
                    verdict = _proof(path, key)
                else:
                    stream.seek(0)
                    verdict = check_log(stream, key, heads)
    except FileNotFoundError:
        raise InputError(Fault("there is nothing here to verify", path, remedy="name an exported log, a bundle or a proof")) from None
    except LedgerError as error:
        return Verdict(what, intact=False, fault=str(error), pinned=key is not None)
    except OSError as error:
        raise InputError(Fault(f"cannot be read: {error.strerror or error}", path)) from None
    return pin(verdict, key_id)


def pin(verdict: Verdict, key_id: str | None) -> Verdict:
    """Return the verdict of who may have signed: the same if the key is the one that was named."""
    if key_id is None or not verdict.intact:
        return verdict
    if not (verdict.key_id or "").startswith(key_id):
        return Verdict(verdict.what, intact=False, fault=f"it was signed by the key {verdict.key_id}, not by {key_id}")
    return replace(verdict, pinned=True)


def read_key(path: Path) -> PublicKey:
    """Read the public key that pins a verification. Raises InputError."""
    try:
        return PublicKey.from_pem(path.read_bytes())
    except OSError as error:
        raise InputError(Fault(f"cannot be read: {error.strerror}", path)) from None
    except LedgerError as error:
        raise InputError(Fault(str(error), path)) from None


def read_known_heads(path: Path) -> tuple[SignedHead, ...]:
    """Read what somebody kept of a log: one signed head, or a heads file. Raises InputError."""
    try:
        data = path.read_bytes()
        return read_heads(data, path) if data.startswith(b"{") else (SignedHead.parse(data.decode()),)
    except OSError as error:
        raise InputError(Fault(f"cannot be read: {error.strerror}", path)) from None
    except (LedgerError, UnicodeDecodeError) as error:
        raise InputError(Fault(f"is neither a signed head nor a heads file: {error}", path)) from None


def _proof(path: Path, key: PublicKey | None) -> Verdict:
    if path.stat().st_size > _PROOF_BYTES:
        raise LedgerError("the file is too long for a proof")
    head, public, fields = check_proof(path.read_bytes(), key)
    facts: dict[str, Any] = {name: fields[name] for name in ("index", "kind", "actor", "time")}
    facts["facts"] = json.dumps(fields["facts"], sort_keys=True)
    return Verdict("proof", True, None, head.origin, head.size, head.root.hex(), public.key_id, key is not None, facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names, print the verdict and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m metier.audit.verify", description="Verify an exported log, a bundle or a proof.")
    parser.add_argument("path", type=Path, metavar="PATH", help="exported log, bundle folder or proof")
    parser.add_argument("--public-key", type=Path, metavar="FILE", help="who must have signed: a public key in PEM form")
    parser.add_argument("--key-id", metavar="HEX", help="who must have signed: 16 or more digits of the key's SHA-256")
    parser.add_argument("--head", type=Path, metavar="FILE", help="what a log has to continue: a signed head or a heads file that you kept")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    try:
        key = read_key(options.public_key) if options.public_key else None
        heads = read_known_heads(options.head) if options.head else ()
        verdict = verify(options.path, key=key, key_id=options.key_id, heads=heads)
    except MetierError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write((json.dumps(verdict.document()) if options.json else "\n".join(verdict.lines())) + "\n")
    return 0 if verdict.intact else 1


if __name__ == "__main__":
    sys.exit(main())
