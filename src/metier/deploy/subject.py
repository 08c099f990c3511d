"""What is exported, on whose word, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.artifacts import Artifact
from metier.deploy.forms import FORMATS, TYPES, Format, holders, reason
from metier.digest import digest_file
from metier.errors import GateRefused, InputError, ModelError, StoreError, nearest
from metier.models.adapterfile import ADAPTER_FILES, adapter_faults
from metier.models.base import Base
from metier.records import Message
from metier.store import Store

__all__ = ["Made", "Subject", "Wish", "find_adapter", "run_of"]

_SHORTEST = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for.

    `type` is that of the numbers in a GGUF file (None: the base's own), `prompts` are the user's own to compare on, and `unreleased` is
    leave to export what no decision lets be released. `runtime` says that a GGUF file has to be run in llama.cpp; without it, it is where that is installed.
    """

    format: Format
    type: str | None = None
    prompts: Sequence[tuple[Message, ...]] | None = None
    unreleased: bool = False
    runtime: bool = False

    def check(self) -> None:
        """Raise InputError for what does not go together."""
        if self.format not in FORMATS:
            raise InputError(f"--format: {self.format!r} is no form of export\n    -> {nearest(self.format, FORMATS)}")
        if self.type is not None and self.format != "gguf":
            raise InputError("--type is the type of numbers in a GGUF file\n    -> leave it out, or add --format gguf: other forms keep the base's own numbers")
        if self.type is not None and self.type not in TYPES:
            raise InputError(f"--type: {self.type!r} is no type of numbers that is written\n    -> {nearest(self.type, TYPES)}")
        if self.runtime and self.format != "gguf":
            raise InputError("--check llama.cpp runs a GGUF file\n    -> leave it out, or add --format gguf")
        if self.prompts is not None and self.format == "peft":
            raise InputError(
                "--prompts are compared where weights are written anew; --format peft hands the adapter's own bytes on\n    -> leave --prompts out"
            )


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter with what it was made from, the newest decision on it and the newest release of that; `refusal` says why it may not be released, if so."""

    project: str
    author: str
    adapter: Artifact
    run: Artifact
    dataset: Artifact
    base: Base
    decision: Artifact | None
    release: Artifact | None
    refusal: str | None

    @property
    def task(self) -> str:
        """What the expert answers with: `generation` is words."""
        return str(self.adapter.facts.get("task", "generation"))

    @property
    def template(self) -> str | None:
        """The chat template that it was trained with; None for an expert that does not converse."""
        if self.task != "generation":
            return None
        return self.adapter.file("chat_template.jinja").read_text(encoding="utf-8")

    def check(self, store: Store, wish: Wish) -> None:
        """Raise GateRefused without a passing decision (unless `unreleased`) or if a file was changed, ModelError for another base model or form."""
        if self.refusal is not None and not wish.unreleased:
            raise GateRefused(f"not exported: {self.refusal}\n    -> or export it with --unreleased: the card then says that nobody has released it")
        for item in filter(None, (self.adapter, self.decision)):
            if store.damaged(item):
                raise GateRefused(f"not exported: the {item.kind} {item.digest[:12]} was changed after it was made\n    -> remove its folder and run again")
        trained = self.adapter.facts["base"]
        if trained["digest"] != self.base.digest:
            raise ModelError(
                f"the adapter was trained on another base model ({trained['name']}, {trained['digest'][:12]}) than {self.base.name} "
                f"({self.base.digest[:12]})\n    -> name that model as base in the project file, or train again"
            )
        self._check_form(wish.format)
        if odd := sorted(set(self.adapter.files) - set(ADAPTER_FILES)):
            raise ModelError(f"the adapter has files that no form of export has a place for: {', '.join(odd)}\n    -> train again")
        if faults := adapter_faults(self.adapter.path, rank=self.adapter.facts.get("rank")):
            raise GateRefused("not exported: " + "; ".join(faults) + "\n    -> its files are not those that training left; train again")

    def _check_form(self, form: Format) -> None:
        method = self.adapter.facts["method"]
        if (why := reason(form, method, self.task)) is None:
            return
        what = f"an expert of the method {method}" if self.task == "generation" else f"an expert that answers with {self.task} (method {method})"
        held = " or ".join(f"--format {other}" for other in holders(method, self.task))
        remedy = f"export with {held}, which can hold it" if held else "no form of export can hold it: serve it with metier serve"
        raise ModelError(f"--format {form} cannot hold {what}: {why}\n    -> {remedy}")

    def as_facts(self) -> dict[str, Any]:
        """Return what the manifest and the log of events say of it."""
        decision = self.decision
        decided = None if decision is None else {"digest": decision.digest, "verdict": decision.facts["verdict"], "approved_by": decision.facts["approved_by"]}
        return {
            "adapter": self.adapter.digest,
            "run": self.run.digest,
            "dataset": self.dataset.digest,
            "base": {"name": self.base.name, "digest": self.base.digest, "licence": self.base.licence},
            "template": self.adapter.facts["template"],
            "decision": decided,
            "release": None if self.release is None else {"digest": self.release.digest, "name": self.release.facts["name"]},
            "released": self.refusal is None,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """What a form's writer made in its folder: what it measured, what a reader has to know, how to use it, and limits that were kept."""

    measured: dict[str, Any]
    limits: dict[str, Any]
    notes: tuple[str, ...]
    use: str
    conversations: tuple[str, ...] = ()


def find_adapter(store: Store, digest: str) -> Artifact:
    """Return the adapter whose digest begins so. Raises InputError, naming what there is, for none or several."""
    folder = store.root / "artifacts" / "adapter"
    names = sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    found = [name for name in names if name.startswith(digest.lower())] if len(digest) >= _SHORTEST else []
    if len(found) == 1:
        return store.open("adapter", found[0])
    there = ", ".join(name[:16] for name in (found or names)) or "none: train one with metier run"
    what = f"begins {len(found)} adapters" if found else f"begins no adapter of this project (at least {_SHORTEST} characters)"
    raise InputError(f"--adapter: {digest!r} {what}\n    -> there are: {there}")


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the SHA-256 and size of every file in a folder by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): {"sha256": digest_file(path), "bytes": path.stat().st_size} for path in paths}


def run_of(adapter: Artifact, store: Store) -> tuple[Artifact, Artifact]:
    """Return the run and the dataset that an adapter comes from. Raises StoreError if one is gone."""
    found: dict[str, Artifact] = {}
    for kind in ("run", "dataset"):
        for parent in adapter.parents:
            if (store.root / "artifacts" / kind / parent / "manifest.json").is_file():
                found[kind] = store.open(kind, parent)
    if missing := [kind for kind in ("run", "dataset") if kind not in found]:
        raise StoreError(f"the {' and the '.join(missing)} of the adapter {adapter.digest[:12]} is no longer there\n    -> an export names both; train again")
    return found["run"], found["dataset"]
