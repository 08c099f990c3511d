"""A bundle: one folder with evidence, a signed statement over every file of it, and proofs that its events are in the log.

::

    decision.json, evidence/..., manifests/...    what the bundle is about: any files
    statement.json                                in-toto Statement v1: every other file with its SHA-256
    statement.dsse.json                           the same bytes, signed (DSSE, Ed25519)
    public-key.pem                                the key that signed statement and head
    log/head                                      the signed head of the log
    log/proofs.json                               entries with their paths to that head

`python -m metier.audit.verify BUNDLE` checks it on a machine that has only this package and `cryptography`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metier.audit import dsse
from metier.audit.bundle_check import HEAD, KEY, PROOFS, SIGNED, STATEMENT, name_fault
from metier.audit.keys import Keys
from metier.audit.ledger import Ledger
from metier.audit.proofs import encode_proofs
from metier.digest import digest_file
from metier.errors import LedgerError, StoreError
from metier.store import remove_folder, sync_folder, write_atomically

__all__ = ["check_target", "write_bundle"]


def check_target(folder: Path) -> None:
    """Raise LedgerError unless a bundle can be written there: nothing stands at its place, and what is above it is a folder that may be written."""
    if folder.exists() or folder.is_symlink():
        raise LedgerError(f"there is something at {folder} already\n    -> choose another folder, or remove it")
    above = next(place for place in folder.absolute().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise LedgerError(f"cannot write the bundle {folder}: {above} is no folder that may be written\n    -> choose another folder")


def write_bundle(folder: Path, files: Mapping[str, bytes | Path], *, statement: Mapping[str, Any], keys: Keys, ledger: Ledger, entries: Sequence[int]) -> Path:
    """Write a bundle to a folder that does not exist yet, and return it.

    `files` maps names inside the bundle (with `/`) to contents or files; `statement` holds predicateType and predicate; `entries` are
    the numbers of the log's entries that the bundle is about. Raises LedgerError; then nothing is left behind.
    """
    if faults := [fault for name in files if (fault := name_fault(name)) is not None]:
        raise LedgerError("\n".join(faults))
    if keys.public != ledger.public:
        raise LedgerError("the keys given are not those of the log: statement and head of a bundle are signed by one key")
    check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _cannot(folder, error) from error
    try:
        _fill(aside, files, statement, keys, ledger, entries)
        aside.chmod(0o755)
        aside.rename(folder)
        sync_folder(folder.parent)
    except (OSError, StoreError) as error:
        raise _cannot(folder, error) from error
    finally:
        remove_folder(aside)
    return folder


def _fill(folder: Path, files: Mapping[str, bytes | Path], statement: Mapping[str, Any], keys: Keys, ledger: Ledger, entries: Sequence[int]) -> None:
    head = ledger.head()
    found = [entry for index in sorted(set(entries)) for entry in ledger.entries(index, index + 1)]
    if missing := sorted(set(entries) - {entry.index for entry in found}):
        raise LedgerError(f"the log has no entry {missing[0]}")
    contents: dict[str, bytes | Path] = {**files, HEAD: head.note.encode(), PROOFS: encode_proofs(found, head, ledger.inclusion)}
    for name, content in contents.items():
        write_atomically(folder / name, content if isinstance(content, bytes) else content.read_bytes())
    payload = dsse.make_statement({name: digest_file(folder / name) for name in contents}, statement)
    write_atomically(folder / STATEMENT, payload)
    write_atomically(folder / SIGNED, dsse.seal(payload, keys.sign, keys.public))
    write_atomically(folder / KEY, keys.public_pem)


def _cannot(folder: Path, error: Exception) -> LedgerError:
    return LedgerError(f"cannot write the bundle {folder}: {error}\n    -> see that the folder may be written and has room, then try again")
