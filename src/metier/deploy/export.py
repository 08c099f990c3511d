"""The export of an expert: checks first, then the form's own writer in a folder aside, a card, a manifest, the event, and only then the folder's name."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import transformers

from metier.deploy.card import card
from metier.deploy.labelled import check_labelled, write_labelled
from metier.deploy.llamacpp import check_gguf, write_file
from metier.deploy.merged import check_merged, write_merged
from metier.deploy.peft import check_peft, write_peft
from metier.deploy.place import aside, check_place
from metier.deploy.subject import Made, Subject, Wish, files_of
from metier.deploy.vllm import check_vllm, write_vllm
from metier.digest import canonical_json, digest_of
from metier.events import Event, Record, now
from metier.progress import SILENT, Progress
from metier.store import Store, write_atomically

__all__ = ["MANIFEST", "Exported", "check", "export"]

MANIFEST = "export.json"
_PACKAGES = ("metier", "torch", "transformers", "safetensors", "gguf", "llama-cpp-python")


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export: its folder, its digest, and what its manifest says."""

    folder: Path
    digest: str
    manifest: Mapping[str, Any]


def check(subject: Subject, wish: Wish, out: Path, store: Store) -> None:
    """Raise what `export` would raise before it writes anything: the gate, the place, what the form cannot hold. Writes nothing."""
    wish.check()
    subject.check(store, wish)
    check_place(out)
    if wish.format == "vllm":
        check_vllm(subject, wish)
    elif wish.format == "gguf":
        check_gguf(subject, wish)
    elif wish.format == "peft":
        check_peft(subject)
    elif subject.task != "generation":
        check_labelled(subject, wish)
    else:
        check_merged(subject)


def export(subject: Subject, wish: Wish, out: Path, *, store: Store, record: Record | None = None, progress: Progress = SILENT) -> Exported:
    """Write an expert in another runtime's form into the new folder `out` and return it.

    `record` keeps the event before the folder has its name: what cannot be put on record is not exported. Raises GateRefused without a
    passing decision (unless the wish says `unreleased`) and where the written model does not answer as the expert does, with what was
    measured; InputError and ModelError for what the form cannot hold. Nothing is left behind then.
    """
    check(subject, wish, out, store)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with aside(out) as folder:
        made = _made(subject, wish, folder, progress)
        write_atomically(folder / "README.md", card(subject, wish, made).encode())
        manifest = _manifest(subject, wish, made, folder)
        digest = digest_of(manifest)
        write_atomically(folder / MANIFEST, canonical_json({**manifest, "digest": digest}) + b"\n")
        if record is not None:
            facts = {key: manifest[key] for key in ("format", "adapter", "decision", "release", "released")}
            said = {"export": digest, "base": subject.base.digest, **facts}
            record(Event("export", subject.author, now(), said, {"folder": str(out.absolute()), "unreleased": wish.unreleased}))
    return Exported(out, digest, {**manifest, "digest": digest})


def _made(subject: Subject, wish: Wish, folder: Path, progress: Progress) -> Made:
    if wish.format == "vllm":
        return write_vllm(subject, folder, wish, progress)
    if wish.format == "peft":
        return write_peft(subject, folder)
    if wish.format == "gguf":
        return write_file(subject, folder, wish, progress)
    if subject.task != "generation":
        return write_labelled(subject, folder, progress)
    return write_merged(subject, folder, wish, progress)[0]


def _manifest(subject: Subject, wish: Wish, made: Made, folder: Path) -> dict[str, Any]:
    return {
        "metier": 1,
        "kind": "export",
        "format": wish.format,
        "project": subject.project,
        **subject.as_facts(),
        "measured": made.measured,
        "limits": made.limits,
        "conversations": list(made.conversations),
        "notes": list(made.notes),
        "made_with": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "files": files_of(folder),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
