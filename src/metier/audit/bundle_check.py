"""The check of a bundle, with nothing but the standard library and `cryptography`. Nothing that a bundle names is opened outside of it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metier.audit import dsse
from metier.audit.entries import ascii_json
from metier.audit.notes import PublicKey, SignedHead
from metier.audit.proofs import check_proofs
from metier.audit.verdict import Verdict, visible
from metier.digest import digest_file, digest_of
from metier.errors import LedgerError

__all__ = ["HEAD", "KEY", "PROOFS", "SIGNED", "STATEMENT", "check_bundle", "name_fault"]

STATEMENT, SIGNED, KEY = "statement.json", "statement.dsse.json", "public-key.pem"
HEAD, PROOFS = "log/head", "log/proofs.json"
_OWN = frozenset({STATEMENT, SIGNED, KEY, HEAD, PROOFS})
_NAME = re.compile(r"(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f\x7f]+(?:/(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f\x7f]+)*")
_OWN_BYTES = 64 << 20
"""Longest file that is read whole: statement, key, head, proofs and manifests."""


def name_fault(name: str) -> str | None:
    """Return why a name cannot be that of a file in a bundle, None if it can."""
    if not _NAME.fullmatch(name):
        return f"{visible(name)!r} cannot be a file's name in a bundle: it has to be relative, with /, without . and .. and control characters"
    if name in _OWN or name.startswith("log/"):
        return f"{visible(name)} is a name of the bundle itself"
    return None


def check_bundle(folder: Path, key: PublicKey | None = None) -> Verdict:
    """Check every file of a bundle and return the verdict; `key` pins who may have signed. Raises LedgerError, naming the first thing that fails."""
    present = dict(_files(folder))
    for name in (KEY, SIGNED, STATEMENT, HEAD, PROOFS):
        if name not in present:
            raise LedgerError(f"{name}: is missing")
    public = _within(KEY, PublicKey.from_pem, _read(present[KEY]))
    if key is not None and key != public:
        raise LedgerError(f"{KEY}: the bundle comes with the key {public.key_id}, not with {key.key_id}")
    payload = _within(SIGNED, dsse.open_envelope, _read(present[SIGNED]), public)
    if _read(present[STATEMENT]) != payload:
        raise LedgerError(f"{STATEMENT}: is not the statement that was signed")
    subjects = _within(STATEMENT, _subjects, payload)
    _check_files(present, subjects)
    head = _within(HEAD, _head, _read(present[HEAD]), public)
    entries = _within(PROOFS, check_proofs, _read(present[PROOFS]), head)
    manifests, logged = _check_manifests(present, entries)
    statement = json.loads(payload)
    facts = {
        "files": len(subjects) + 3,
        "predicate": statement["predicateType"],
        "entries": ", ".join(f"{entry['index']} {entry['kind']} by {entry['actor']} at {entry['time']}" for entry in entries) or "none",
        "manifests": f"{manifests}, of which {logged} are recorded in the entries above",
        "head_signed_at": head.time,
    }
    return Verdict("bundle", True, None, head.origin, head.size, head.root.hex(), public.key_id, key is not None, facts)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file below the folder with its name, in order. Raises LedgerError for what is neither file nor folder with files."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        here = Path(place)
        if not folders and not names:
            raise LedgerError(f"{visible(here.relative_to(folder).as_posix())}: is an empty folder, which no bundle has")
        for name in [*folders, *sorted(names)]:
            path = here / name
            mode = path.lstat().st_mode
            shown = visible(path.relative_to(folder).as_posix())
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise LedgerError(f"{shown}: is a link or a device, which no bundle has")
            if stat.S_ISREG(mode):
                yield path.relative_to(folder).as_posix(), path


def _check_files(present: Mapping[str, Path], subjects: Mapping[str, str]) -> None:
    """Compare the files with the statement, in the order of their names."""
    unsigned = {STATEMENT, SIGNED, KEY}
    for name in sorted(present.keys() | subjects.keys()):
        if name in unsigned and name not in subjects:
            continue
        if name not in subjects:
            raise LedgerError(f"{visible(name)}: is not in the signed statement: it was added or renamed")
        if name not in present:
            raise LedgerError(f"{visible(name)}: is missing")
        if digest_file(present[name]) != subjects[name]:
            raise LedgerError(f"{visible(name)}: was changed; its SHA-256 is not the one in the signed statement")


def _check_manifests(present: Mapping[str, Path], entries: list[dict[str, Any]]) -> tuple[int, int]:
    """Recompute the digest of every manifest of an artefact; count how many there are, and how many the proved entries name."""
    named = {value for entry in entries for value in _texts(entry["facts"])}
    count = logged = 0
    for name in sorted(present):
        if not (name.startswith("manifests/") and name.endswith(".json")):
            continue
        try:
            value = json.loads(_read(present[name]))
            digest = value["digest"]
            found = digest_of({key: item for key, item in value.items() if key != "digest"})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise LedgerError(f"{visible(name)}: is not the manifest of an artefact") from None
        if found != digest:
            raise LedgerError(f"{visible(name)}: the digest that it states is not its own")
        count += 1
        logged += digest in named
    return count, logged


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _subjects(payload: bytes) -> dict[str, str]:
    """The files of a statement, name to SHA-256. Raises LedgerError if it is not a statement as bundles have it."""
    try:
        value = json.loads(payload)
        subjects = {item["name"]: item["digest"]["sha256"] for item in value["subject"]}
        same = value["_type"] == dsse.STATEMENT_TYPE and isinstance(value["predicateType"], str) and len(subjects) == len(value["subject"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LedgerError("is not an in-toto statement") from None
    if not same or ascii_json(value) != payload:
        raise LedgerError("is not an in-toto statement as bundles have it")
    return subjects


def _head(data: bytes, key: PublicKey) -> SignedHead:
    try:
        head = SignedHead.parse(data.decode())
    except UnicodeDecodeError:
        raise LedgerError("is not a signed head") from None
    head.check(key)
    return head


def _read(path: Path) -> bytes:
    if path.stat().st_size > _OWN_BYTES:
        raise LedgerError(f"{visible(path.name)}: is too long for what it should be")
    return path.read_bytes()


def _within(name: str, function: Any, *arguments: Any) -> Any:
    """Call a check and name the file that it was about."""
    try:
        return function(*arguments)
    except LedgerError as error:
        raise LedgerError(f"{name}: {error}") from None
