"""Releases: an adapter that passed the gate and was approved, in a folder that is signed as a whole and checked as a whole.

::

    release.json                 {"statement": {...}, "signature": {...}}; the statement names every other file with its SHA-256
    adapter_model.safetensors    \\
    adapter_config.json           } the adapter, byte for byte
    chat_template.jinja          /
    manifest.json                the store's own, rebuilt from the statement and compared byte for byte
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from metier.artifacts import MANIFEST, Artifact, planned_manifest
from metier.digest import canonical_json, digest_file, digest_of
from metier.errors import GateRefused, InputError, StoreError
from metier.events import Event, Record, now
from metier.models.adapterfile import ADAPTER_FILES, adapter_faults
from metier.packs.spec import Pack
from metier.people import same_person
from metier.store import Store, remove_folder, write_atomically

__all__ = ["STATEMENT", "Release", "Signer", "newest", "open_release", "refusal", "release", "released", "releases"]

STATEMENT = "release.json"
_APPROVAL = "separate_approval"
_CONTEXT = b"metier release v1\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_STATEMENT = 1 << 20


class Signer(Protocol):
    """The project's key: Ed25519 (RFC 8032)."""

    @property
    def key_id(self) -> str:
        """Name of the key: a digest of its public half."""

    @property
    def public_pem(self) -> bytes:
        """The public half as PEM."""

    def sign(self, data: bytes, /) -> bytes:
        """Return the signature, 64 bytes."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that was checked: where it lies and what its signed statement says."""

    path: Path
    digest: str
    statement: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name under which it is served."""
        return str(self.statement["name"])

    @property
    def adapter_digest(self) -> str:
        """Digest of the adapter."""
        return str(self.statement["adapter"])

    @property
    def base_digest(self) -> str:
        """Digest of the base model that the adapter was trained on."""
        return str(self.statement["base"]["digest"])


def refusal(decision: Artifact) -> str | None:
    """Return why a decision does not let anything be released, naming every control in the way; None if it does."""
    facts = decision.facts
    lines = [f"  {name}: {entry['status']}: {entry['why']}" for name, entry in sorted(facts["controls"].items()) if entry["blocks"]]
    others = [name for name in facts["approved_by"] if not same_person(name, facts["author"])]
    if not others and not lines:
        lines.append("  nobody but the author has approved it")
    if facts["verdict"] == "pass" and not lines:
        return None
    waiting = sorted(name for name, entry in facts["controls"].items() if entry["blocks"] and entry["check"] != _APPROVAL)
    flags = "".join(f" --control {name}" for name in waiting)
    remedy = f"somebody else than {facts['author']} looks at metier comply and runs: metier approve --by NAME{flags}"
    if facts["verdict"] == "fail":
        remedy = "mend what fails and run again; nobody can approve it away"
    return "\n".join([f"not released: the verdict is {facts['verdict']}", *lines, f"    -> {remedy}"])


def release(name: str, decision: Artifact, adapter: Artifact, pack: Pack, signer: Signer, *, store: Store, record: Record | None = None) -> Artifact:
    """Write the signed release of an adapter and return it; the same decision, name and key give the same release.

    `record` keeps the event before the release exists: what cannot be put on record is not released.
    Raises GateRefused, naming each control, without a passing decision and an approval by somebody else than the author, or if the
    adapter is not the one decided on or is not sound any more; InputError for a name that cannot be served.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--name: {name!r} cannot be the name of a release\n    -> letters, digits, . - and _, beginning with a letter or digit, at most 64")
    if store.damaged(decision) or store.damaged(adapter):
        raise GateRefused("not released: the decision or the adapter was changed after it was made\n    -> remove its folder and run again")
    if (reason := refusal(decision)) is not None:
        raise GateRefused(reason)
    subject = decision.facts["subject"]
    if subject["adapter"] != adapter.digest:
        raise GateRefused("not released: the decision is that of another adapter\n    -> run metier comply and look again")
    base = subject["base"]
    if faults := adapter_faults(adapter.path, rank=adapter.facts["rank"], base=base["digest"], trained_on=adapter.facts["base"]["digest"]):
        raise GateRefused("not released: " + "; ".join(faults))
    statement = _statement(name, decision, adapter, pack, signer)
    signature = base64.b64encode(signer.sign(_CONTEXT + canonical_json(statement))).decode()
    text = canonical_json({"statement": statement, "signature": {"algorithm": "Ed25519", "key_id": signer.key_id, "value": signature}})
    digest = _manifest(statement, text)["digest"]
    if (store.root / "artifacts" / "release" / digest / MANIFEST).exists() and not store.damaged(found := store.open("release", digest)):
        return found
    if record is not None:
        said = {"release": digest, **{key: statement[key] for key in ("name", "adapter", "decision", "evidence", "approvals")}}
        record(Event("release", statement["author"], now(), said))
    folder = store.workspace(f"release-{digest[:16]}").folder / "release"
    remove_folder(folder)
    folder.mkdir(parents=True)
    for file in adapter.files:
        shutil.copyfile(adapter.file(file), folder / file)
    write_atomically(folder / STATEMENT, text)
    return store.commit("release", folder, parents=_parents(statement), facts=statement)


def _manifest(statement: Mapping[str, Any], text: bytes) -> dict[str, Any]:
    return planned_manifest("release", _parents(statement), statement, {**statement["files"], STATEMENT: text})


def _statement(name: str, decision: Artifact, adapter: Artifact, pack: Pack, signer: Signer) -> dict[str, Any]:
    disclaimers = [rule.model_dump(mode="json") for rule in pack.guard]
    return {
        "metier": 1,
        "name": name,
        "adapter": adapter.digest,
        "rank": adapter.facts["rank"],
        "template": adapter.facts["template"],
        "base": decision.facts["subject"]["base"],
        "decision": decision.digest,
        "evidence": decision.facts["evidence"],
        "author": decision.facts["author"],
        "approved_by": decision.facts["approved_by"],
        "approvals": decision.facts["approvals"],
        "pack": {"name": pack.facts.name, "version": pack.facts.version, "digest": pack.digest},
        "guard": digest_of(disclaimers),
        "files": {file: dict(facts) for file, facts in sorted(adapter.files.items())},
        "key_id": signer.key_id,
    }


def _parents(statement: Mapping[str, Any]) -> list[str]:
    return [statement["adapter"], statement["decision"], *statement["approvals"]]


def open_release(folder: Path, public_key: bytes, *, base: str | None = None) -> Release:
    """Check a release folder against the project's public key (PEM) and return it.

    Every file is hashed again; nothing may be added, changed or missing, no link may lead out; the weights have to be sound
    safetensors of the stated rank with finite numbers, and `base`, if given, the digest of the base model they were made for.
    Raises GateRefused that names the first thing that is wrong, StoreError if the folder cannot be read.
    """
    try:
        return _opened(folder, public_key, base)
    except OSError as error:
        raise StoreError(f"the release {folder} cannot be read: {error.strerror or error}\n    -> check the folder and its permissions") from None


def _refuse(folder: Path, what: str) -> GateRefused:
    return GateRefused(f"the release {folder} is refused: {what}\n    -> do not serve it; release again from the project, and find out who changed it")


def _opened(folder: Path, public_key: bytes, base: str | None) -> Release:
    names = _names(folder)
    statement, raw = _signed(folder, public_key)
    expected = {STATEMENT, *statement["files"]}
    if extra := sorted(names - expected - {MANIFEST}):
        raise _refuse(folder, f"{extra[0]!r} does not belong to it")
    if missing := sorted(expected - names):
        raise _refuse(folder, f"{missing[0]!r} is missing")
    if odd := sorted(set(statement["files"]) - set(ADAPTER_FILES)):
        raise _refuse(folder, f"{odd[0]!r} is no file of an adapter")
    for name, facts in sorted(statement["files"].items()):
        if (folder / name).stat().st_size != facts["bytes"] or digest_file(folder / name) != facts["sha256"]:
            raise _refuse(folder, f"{name!r} was changed after it was signed")
    manifest = _manifest(statement, raw)
    written = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True).encode()
    if MANIFEST in names and (folder / MANIFEST).read_bytes() != written:
        raise _refuse(folder, f"{MANIFEST!r} was changed after it was signed")
    if faults := adapter_faults(folder, rank=statement["rank"], base=base, trained_on=statement["base"]["digest"]):
        raise _refuse(folder, faults[0])
    return Release(folder, manifest["digest"], statement)


def _names(folder: Path) -> set[str]:
    if folder.is_symlink() or not folder.is_dir():
        raise _refuse(folder, "it is not a folder")
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file():
            raise _refuse(folder, f"{name!r} is a link, a folder or something else that is no plain file")
        found.add(name)
    return found


def _signed(folder: Path, public_key: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the statement whose signature is right, and the bytes of its file, which have only one form."""
    path = folder / STATEMENT
    if not path.is_file() or path.stat().st_size > _MOST_STATEMENT:
        raise _refuse(folder, f"{STATEMENT!r} is missing or too large")
    raw = path.read_bytes()
    try:
        document = json.loads(raw)
        statement, signature = document["statement"], document["signature"]
        value = base64.b64decode(signature["value"], validate=True)
        signed = _CONTEXT + canonical_json(statement)
        if canonical_json(document) != raw or base64.b64encode(value).decode() != signature["value"]:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _refuse(folder, f"{STATEMENT!r} is not in the form in which it was signed") from None
    try:
        key = load_pem_public_key(public_key)
    except ValueError:
        raise InputError("the public key is no PEM\n    -> give the key that the project shows with its ledger") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("the public key is not one of Ed25519\n    -> give the project's own key")
    try:
        key.verify(value, signed)
    except InvalidSignature:
        raise _refuse(folder, "its signature is not that of this key") from None
    form = {"statement", "signature"} == set(document) and {"algorithm", "key_id", "value"} == set(signature)
    if not form or signature["algorithm"] != "Ed25519" or signature["key_id"] != statement["key_id"]:
        raise _refuse(folder, f"{STATEMENT!r} is not in the form in which it was signed")
    return statement, raw


def releases(store: Store, public_key: bytes) -> list[tuple[Artifact, Release | None, str]]:
    """Return the project's releases, oldest first, each checked: the artefact, the release if it is sound, or why it is refused."""
    found: list[tuple[Artifact, Release | None, str]] = []
    folders = sorted((store.root / "artifacts" / "release").glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    for path in folders:
        try:
            artifact = store.open("release", path.parent.name)
            found.append((artifact, open_release(artifact.path, public_key), ""))
        except (GateRefused, StoreError) as error:
            found.append((Artifact("release", path.parent.name, (), path.parent, {}, {}), None, str(error)))
    return found


def released(store: Store, decision: Artifact) -> Artifact | None:
    """Return the newest release that was made on a decision, None if there is none. It is not checked here."""
    paths = sorted((store.root / "artifacts" / "release").glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    found = [item for path in paths if (item := store.open("release", path.parent.name)).facts["decision"] == decision.digest]
    return found[-1] if found else None


def newest(names: Sequence[tuple[Artifact, Release | None, str]]) -> dict[str, Release]:
    """Return the newest sound release of each name."""
    return {release.name: release for _, release, _ in names if release is not None}
