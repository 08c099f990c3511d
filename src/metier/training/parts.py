"""What a joint training leaves: the parts of all members, for each of them to take its own.

`joint/KEY` below the store of the project that trained holds `parts.safetensors` (all layers, see `metier.models.methods.joint`), what was measured
step by step, and `facts.json` with the digests of the others, PEFT's configuration and what the run says. KEY is over the members' names and
datasets, the base model, the settings and the code: whichever member asks, it finds what any of them has trained. Written aside and renamed into place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_tensors

from metier.artifacts import Artifact
from metier.digest import canonical_json, digest_bytes, digest_file, digest_of
from metier.errors import StoreError
from metier.kept import aside
from metier.models import Base, Chat, load_tokenizer
from metier.models.methods import member_state
from metier.models.saved import write_tensors
from metier.records import Record
from metier.shards import dataset_records, write_drops
from metier.store import Workspace, remove_folder, write_atomically
from metier.training.answers import Answering, commit_trained
from metier.training.facts import named
from metier.training.members import Member
from metier.training.reading import examples_of
from metier.training.settings import TrainingSettings
from metier.training.tokenised import FOLDER as TOKENS
from metier.training.trainer import METRICS

__all__ = ["Parts", "commit_part", "find_parts", "keep_parts", "parts_key"]

FOLDER = "joint"
_TENSORS, _FACTS = "parts.safetensors", "facts.json"
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """What was found: the folder, the tensors of all members, PEFT's configuration of each, and what the run says."""

    folder: Path
    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    files: tuple[str, ...]
    """Names of what was measured step by step."""
    examples: tuple[int, ...]
    """How many each member had to learn from."""
    trained_by: str


def parts_key(members: Sequence[Member], base: Base, settings: TrainingSettings, teacher: Base | None, code: str) -> str:
    """Return the key of a joint training: all that its numbers depend on, the same for each of its members."""
    taught = settings.model_dump(mode="json", exclude={"adaptation": {"joint": {"projects"}}, "checkpoint": True, "monitor": True})
    about = {"members": sorted(member.digest for member in members), "base": base.digest, "teacher": teacher and teacher.digest}
    return digest_of({**about, "settings": taught, "code": code})[:32]


def find_parts(members: Sequence[Member], key: str) -> Parts | None:
    """Return what one of the members has trained under this key, with the bytes that were written; None where there is nothing whole."""
    return next((found for member in members if (found := _read(member.store.root / FOLDER / key)) is not None), None)


def _read(folder: Path) -> Parts | None:
    try:
        about = json.loads((folder / _FACTS).read_bytes())
        data = (folder / _TENSORS).read_bytes()
        files = {name: digest for name, digest in about["files"].items() if name != _TENSORS}
        if digest_bytes(data) != about["files"][_TENSORS] or any(digest_file(folder / name) != digest for name, digest in files.items()):
            return None
    except (OSError, ValueError, KeyError):
        return None
    return Parts(folder, parse_tensors(data), about["config"], about["facts"], tuple(files), tuple(about["examples"]), about["trained_by"])


def keep_parts(made: Answering, own: Member, key: str) -> Parts:
    """Keep what a joint training that has ended has made, in the store of the project that trained, and return it. Raises StoreError if the disk does not."""
    place = own.store.root / FOLDER
    with aside(place, key, kept=_KEPT) as writing:
        write_tensors(writing / _TENSORS, made.tuned.state())
        made.trainer.hand_in(writing)
        files = {path.name: digest_file(path) for path in sorted(writing.iterdir())}
        about: dict[str, Any] = {"files": files, "config": made.tuned.config(), "facts": made.facts(), "trained_by": own.project}
        about["examples"] = list(made.trainer.course.taught.members)
        write_atomically(writing / _FACTS, canonical_json(about))
        remove_folder(place / key)
        writing.rename(place / key)
    found = _read(place / key)
    if found is None:
        raise StoreError(f"{place / key} cannot be read back\n    -> check the disk")
    return found


def commit_part(
    found: Parts, members: Sequence[Member], own: Member, base: Base, settings: TrainingSettings, *, workspace: Workspace
) -> tuple[Artifact, Artifact]:
    """Hand in the run and the adapter of one member: the shared part and its own as one, ordinary, low-rank adapter.

    The run says who the companions are, and under which terms the data is that has shaped the shared part.
    """
    chat = Chat(load_tokenizer(base))
    number, rank = members.index(own), settings.adaptation.joint.rank
    taught, _ = examples_of(own.dataset, base, chat, settings, kept=own.store.root / TOKENS, progress=workspace.progress)
    run = workspace.folder / "run"
    remove_folder(run)
    run.mkdir()
    for name in found.files:
        shutil.copyfile(found.folder / name, run / name)
    write_drops(run / "drops.parquet", taught.drops)
    losses = _losses(found.folder / METRICS, found.facts["best_step"]) or [None] * len(members)
    together = [_said(own, *item) for item in zip(members, found.examples, losses, strict=True) if item[0] is not own]
    tensors = member_state(found.tensors, number, own=rank, members=len(members))
    facts = dict(found.facts) | {
        "base": named(base),
        "settings": found.facts["settings"] | {"asked": settings.model_dump(mode="json", exclude_unset=True)},
        "dropped": len(taught.drops),
        "control_tokens_broken_up": taught.broken_up,
        "validation_loss": losses[number],
        "trainable_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "joint": {
            "members": [member.project for member in members],
            "trained_by": found.trained_by,
            "examples": found.examples[number],
            "shared_rank": found.config["r"] - rank,
            "own_rank": rank,
            "trainable_parameters": found.facts["trainable_parameters"],
            "validation_loss": found.facts["validation_loss"],
        },
        "companions": together,
    }
    config = {**found.config, "base_model_name_or_path": base.name}
    sizes = {"rank": config["r"], "alpha": config["lora_alpha"]}
    return commit_trained(workspace, own.dataset, base, chat.template, facts=facts, sizes=sizes, config=config, tensors=tensors)


def _losses(metrics: Path, step: int | None) -> list[float | None] | None:
    """Return each member's validation loss at a step."""
    rows = map(json.loads, metrics.read_bytes().splitlines())
    return next((row["validation_by_member"] for row in rows if row["step"] == step and "validation_by_member" in row), None)


def _said(own: Member, companion: Member, examples: int, loss: float | None) -> dict[str, Any]:
    """Return what a run says of a companion: whose data it was, under which terms it may be used, and how much of it is held out here."""
    register = companion.dataset.facts.get("register", ())
    held = {_asked(record) for split in ("validation", "test") for record in dataset_records(own.dataset, split)}
    return {
        "project": companion.project,
        "dataset": companion.dataset.digest,
        "examples": examples,
        "validation_loss": loss,
        "held_out_here": len(held & {_asked(record) for record in dataset_records(companion.dataset, "train")}),
        "sources": [{name: entry[name] for name in ("uri", "sha256", "rows", "licence", "basis")} for entry in register],
    }


def _asked(record: Record) -> str:
    """Return the digest of what a record asks: everything before its last learnt message, or its text."""
    last = max((place for place, message in enumerate(record.messages) if message.learn), default=len(record.messages))
    return digest_of([[message.role, message.content] for message in record.messages[:last]] or record.text)
