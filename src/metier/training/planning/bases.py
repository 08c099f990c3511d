"""Which base model to start from: candidates on disk, asked the user's own data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metier.artifacts import Artifact
from metier.errors import InputError, ModelError
from metier.models import Base, Chat, LocalModel, load_tokenizer, resolve, text_likelihoods
from metier.progress import SILENT, Progress
from metier.records import Record
from metier.shards import dataset_records
from metier.training.planning.hardware import this_machine
from metier.training.planning.intervals import Interval, mean_interval, share_interval
from metier.training.planning.prompting import Family, Searcher, families, measure_prompting
from metier.training.planning.shape import parameters, read_shape

__all__ = ["Sample", "compare_bases", "find_bases"]

_TEXTS = 64
_CHARACTERS = 2000
"""Characters of a text that are read: enough for a figure that no longer moves, few enough for minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What every candidate is asked: texts of the validation split by language, and families of questions."""

    texts: dict[str, list[str]]
    families: list[Family]
    shots: int
    seed: int


def find_bases(folders: Sequence[Path]) -> list[Base]:
    """Return the base models in these folders: a folder is a model, or holds models. Raises InputError with the fault of each that is neither."""
    found: list[Base] = []
    faults: list[str] = []
    for folder in folders:
        inside = [folder] if (folder / "config.json").is_file() else sorted(item.parent for item in folder.glob("*/config.json"))
        if not inside:
            faults.append(f"{folder} holds no base model\n    -> give a folder with config.json, or one that holds such folders")
        for place in inside:
            try:
                found.append(resolve(str(place.resolve()), root=place))
            except ModelError as error:
                faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return found


def sample_of(dataset: Artifact, *, items: int, shots: int, seed: int) -> Sample:
    """Return the sample that candidates are asked. Raises InputError for a dataset without validation records."""
    train, validation = list(dataset_records(dataset, "train")), list(dataset_records(dataset, "validation"))
    texts: dict[str, list[str]] = {}
    for record in sorted(validation, key=lambda record: record.id)[:_TEXTS]:
        texts.setdefault(record.language or "other", []).append(_text(record)[:_CHARACTERS])
    if not texts:
        raise InputError("the dataset has no validation record, so base models cannot be compared on it\n    -> set prepare.split.validation above 0")
    return Sample(texts, families(train, validation, limit=items), shots, seed)


def _text(record: Record) -> str:
    return "\n".join([record.text, *(message.content for message in record.messages)]).strip()


def compare_bases(
    bases: Sequence[Base], dataset: Artifact, searcher: Searcher, *, items: int = 40, shots: int = 4, seed: int = 0, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Return what each candidate makes of the user's data, the best first: the fewest bits a character of the validation texts.

    Bits a character compare models of different tokenizers (perplexities do not). The few-shot score is the share of right answers, over
    all families with a closed set of answers. A candidate that does not fit into memory or cannot be loaded stands last with the reason.
    """
    sample = sample_of(dataset, items=items, shots=shots, seed=seed)
    machine = this_machine()
    rows = [_candidate(base, sample, searcher, machine.memory, machine.precision, progress) for base in bases]
    return sorted(rows, key=lambda row: (row["bits_a_character"] is None, (row["bits_a_character"] or {}).get("value", 0.0), row["name"]))


def _candidate(base: Base, sample: Sample, searcher: Searcher, memory: int, precision: int, progress: Progress) -> dict[str, Any]:
    size = sum(item.stat().st_size for item in base.folder.glob("*.safetensors"))
    row: dict[str, Any] = {"name": base.name, "digest": base.digest, "licence": base.licence, "bytes": size, "parameters": None}
    row |= {"tokens_a_character": None, "bits_a_character": None, "few_shot": None, "few_shot_items": 0, "note": ""}
    try:
        row["parameters"] = parameters(read_shape(base.folder))
    except ModelError as error:
        row["note"] = str(error).splitlines()[0]
    try:
        chat = Chat(load_tokenizer(base))
        row["tokens_a_character"] = {language: _fragmentation(chat, texts) for language, texts in sample.texts.items()}
        if (row["parameters"] or size // 2) * precision > 0.8 * memory:
            return row | {"note": f"not asked: its weights do not fit into {memory / 1e9:.1f} GB"}
        model = LocalModel.open(base, device="cuda" if torch.cuda.is_available() else "cpu")
        row["bits_a_character"] = _bits(model, [text for texts in sample.texts.values() for text in texts], sample.seed).as_facts()
        row |= _few_shot(model, sample, searcher, progress, Path(base.name).name)
    except ModelError as error:
        row["note"] = str(error).splitlines()[0]
    return row


def _fragmentation(chat: Chat, texts: Sequence[str]) -> float:
    """Tokens a character: how finely a tokenizer cuts this language."""
    tokens = sum(len(chat.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    return tokens / max(1, sum(len(text) for text in texts))


def _bits(model: LocalModel, texts: Sequence[str], seed: int) -> Interval:
    found = text_likelihoods(model, texts)
    # A text longer than the reader's limit counts with the characters of the tokens that were read.
    shares = [
        min(1.0, item.tokens / max(1, len(model.chat.tokenizer(text, add_special_tokens=False)["input_ids"]))) for item, text in zip(found, texts, strict=True)
    ]
    bits = [-item.log_probability / math.log(2) for item in found]
    return mean_interval(bits, [len(text) * share for text, share in zip(texts, shares, strict=True)], seed=seed)


def _few_shot(model: LocalModel, sample: Sample, searcher: Searcher, progress: Progress, name: str) -> dict[str, Any]:
    hits = items = 0.0
    for family in sample.families:
        if family.choices:
            measured = measure_prompting(model, family, searcher, shots=sample.shots, seed=sample.seed, arms=("examples",), progress=progress)
            hits += measured.scores["examples"].value * measured.items
            items += measured.items
    if not items:
        return {}
    progress.say(f"{name}: {hits:.0f} of {items:.0f} right with {sample.shots} examples")
    return {"few_shot": share_interval(round(hits), round(items)).as_facts(), "few_shot_items": round(items)}
