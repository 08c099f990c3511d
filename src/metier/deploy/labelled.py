"""An expert for labels, spans, numbers or pairs as a plain transformers folder, compared with the expert before it is shown to anybody."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from metier.artifacts import Artifact
from metier.deploy.merged import coarsest, limit_facts, measured_facts, refuse
from metier.deploy.subject import Made, Subject, Wish
from metier.deploy.tokenizers import copy_tokenizer
from metier.errors import GateRefused, InputError, ModelError
from metier.models.adapterfile import WEIGHTS, weights_of
from metier.models.answers import pair_of, text_of
from metier.models.heads import head_of, outline, plain_class
from metier.models.labelfiles import load_merged
from metier.models.labeller import Labeller, answer_places
from metier.models.labels import Labelling, LabelTask, read_labelling
from metier.models.merge import stored_tensors
from metier.models.parity import Limits, compare
from metier.models.tokenizer import load_tokenizer
from metier.models.words import Reading
from metier.progress import Progress
from metier.shards import dataset_records
from metier.store import write_atomically

__all__ = ["LIMITS", "PROBLEMS", "check_labelled", "write_labelled"]

RECORDS = 64
"""So many records of the validation split are compared: a wrong weight shows in every one of them."""

LIMITS: Mapping[str, Limits] = {
    "F32": Limits(divergence=1e-5, largest=0.01, tie=0.01),
    "F16": Limits(divergence=3e-2, largest=1.0, tie=0.2),
    "BF16": Limits(divergence=3e-2, largest=1.0, tie=0.2),
}
"""What may differ, by the format in which the base is stored. Measured: 1e-6 of an output with MiniLM in fp32; a LoRA on Gemma 3 270M, whose sum with
the weights is rounded to bf16, 0.009 nats and 0.32, where answering in bf16 instead of fp32 costs 0.002 and 0.2."""

PROBLEMS: Mapping[LabelTask, str] = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "pair": "multi_label_classification",
    "regression": "regression",
}
"""transformers' `problem_type`: what its pipelines make of the head's outputs. A pair's one output goes through a sigmoid, as several labels' do."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Records that are compared: their ids, texts and second texts, and the tokens in which the expert reads them."""

    names: tuple[str, ...]
    texts: Sequence[str]
    pairs: Sequence[str | None]
    readings: Sequence[Reading]


def check_labelled(subject: Subject, wish: Wish) -> None:
    """Raise ModelError for what no class of transformers can hold, InputError for wishes that do not go together; nothing is written."""
    if wish.prompts is not None:
        raise InputError("--prompts are conversations; this expert is compared on records of the validation split\n    -> leave --prompts out")
    labelling = read_labelling(subject.adapter.path)
    if faults := list(_faults(subject, labelling)):
        raise ModelError("transformers cannot hold this expert: " + "; ".join(faults) + "\n    -> serve it with metier serve")
    if weights_of(subject.adapter.path) == WEIGHTS:
        stored_tensors(subject.base.folder)


def _faults(subject: Subject, labelling: Labelling) -> Iterator[str]:
    if plain_class(subject.base, labelling) is None:
        kind = "AutoModelForTokenClassification" if labelling.by_word else "AutoModelForSequenceClassification"
        yield f"its {kind} has no class for this base model's architecture"
    elif labelling.task == "regression" and _last_linear(outline(subject.base, labelling)).bias is None:
        yield f"its head for this architecture has no bias, so nothing can add the {labelling.centre:g} around which the expert's numbers lie"


def _last_linear(model: nn.Module) -> nn.Linear:
    """Return the layer that makes the outputs of a model's head."""
    return [module for module in head_of(model)[1].modules() if isinstance(module, nn.Linear)][-1]


def write_labelled(subject: Subject, folder: Path, progress: Progress) -> Made:
    """Write a folder that transformers' Auto classes load and compare it with the expert. Raises GateRefused beyond the limits."""
    model, labelling = load_merged(subject.base, subject.adapter.path)
    _configure(model, labelling, subject)
    if labelling.task == "regression":
        _in_its_own_unit(model, labelling)
    model.save_pretrained(folder)
    # Outputs are in the labels' own unit now.
    replace(labelling, centre=0.0, spread=1.0).write(folder)
    expert = Labeller.open(subject.base, subject.adapter.path, dtype=torch.float32)
    asked = _asked(subject.dataset, expert)
    copy_tokenizer(subject.base.folder, folder, None)
    if any(reading.kinds for reading in asked.readings) and expert.layout.kinds:
        _telling_texts_apart(folder)
    progress.start("answers", len(asked.readings), "records")
    expected = [row for reading in asked.readings for row in expert.scores([reading])]
    found = list(_plain_scores(folder, expert, asked, progress))
    progress.finish("answers")
    if labelling.task == "regression":  # Compared in standard deviations of the numbers, as they are learnt.
        found = [(row - labelling.centre) / labelling.spread for row in found]
    parity = compare([_choices(row, labelling) for row in expected], [_choices(row, labelling) for row in found])
    kind = coarsest(folder)
    refuse(parity, LIMITS[kind], f"the folder ({kind}), loaded by transformers, does not answer as the expert does", over="records")
    measured = {"records": len(asked.readings), **measured_facts(parity)}
    del measured["conversations"]
    if labelling.task == "regression":
        measured = {key: measured[key] for key in ("records", "largest", "error")}
    return Made(measured, limit_facts(LIMITS[kind]), tuple(_notes(folder, labelling, asked, expert)), _use(labelling, expert), asked.names)


def _configure(model: Any, labelling: Labelling, subject: Subject) -> None:
    """Say in the configuration what outputs mean, and by which token a decoder tells where a text ends when texts are read together."""
    model.config.problem_type = PROBLEMS.get(labelling.task)
    padding = load_tokenizer(subject.base).pad_token_id
    if model.config.get_text_config().pad_token_id is None and padding is not None:
        model.config.get_text_config().pad_token_id = padding


@torch.no_grad()
def _in_its_own_unit(model: nn.Module, labelling: Labelling) -> None:
    """Let the head give the number itself: it learnt (number - centre) / spread."""
    last = _last_linear(model)
    last.weight.mul_(labelling.spread)
    last.bias.mul_(labelling.spread).add_(labelling.centre)


def _asked(dataset: Artifact, expert: Labeller) -> _Asked:
    """Return the first records of the validation split by id (ids are digests, so that is a fixed random sample) that the model can read."""
    records = sorted(dataset_records(dataset, "validation"), key=lambda record: record.id)
    found = [(record.id, text_of(record)) for record in records]
    pairs = [None if expert.labelling.by_word else pair_of(record) for record in records]
    readings = expert.read([text for _, text in found], pairs)
    fits = [
        place for place, reading in enumerate(readings) if len(answer_places(reading, expert.layout)) > 0 and len(reading) <= expert.labelling.maximum_tokens
    ]
    if not fits:
        raise InputError(
            f"the validation split of the dataset {dataset.digest[:12]} has no text that the expert reads, so nothing could be compared\n"
            "    -> build the dataset with more records"
        )
    chosen = fits[:RECORDS]
    names, texts = ([found[place][column] for place in chosen] for column in (0, 1))
    return _Asked(tuple(names), texts, [pairs[place] for place in chosen], [readings[place] for place in chosen])


@torch.inference_mode()
def _plain_scores(folder: Path, expert: Labeller, asked: _Asked, progress: Progress) -> Iterator[torch.Tensor]:
    """Yield the outputs [answers, classes] of each text by the folder as plain transformers loads it, in fp32."""
    kind = transformers.AutoModelForTokenClassification if expert.labelling.by_word else transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True).eval()
    for reading in asked.readings:
        ids = torch.tensor([reading.tokens])
        kinds = {"token_type_ids": torch.tensor([reading.kinds])} if reading.kinds and expert.layout.kinds else {}
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **kinds).logits[0].float()
        yield logits[list(answer_places(reading, expert.layout))] if expert.labelling.by_word else logits[None]
        progress.advance("answers")


def _telling_texts_apart(folder: Path) -> None:
    """Let the folder's tokenizer say which tokens are of the second text, as the model was trained: many only do so when asked."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    names = config.get("model_input_names") or ["input_ids", "attention_mask"]
    if "token_type_ids" not in names:
        config["model_input_names"] = [names[0], "token_type_ids", *names[1:]]
        write_atomically(path, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())


def _choices(scores: torch.Tensor, labelling: Labelling) -> torch.Tensor:
    """Return outputs as what a softmax decides between: classes as they are, outputs of their own as yes against no."""
    if labelling.task in ("classification", "tagging"):
        return scores
    flat = scores.reshape(-1, 1)
    return torch.cat([flat, torch.zeros_like(flat)], dim=1)


def _notes(folder: Path, labelling: Labelling, asked: _Asked, expert: Labeller) -> Iterator[str]:
    """Yield what a reader has to know: how texts have to be cut. Raises GateRefused if the folder's tokenizer cuts every text otherwise."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    separate = tokenizer.sep_token_id is not None
    given = [_given(text, pair, separate=separate) for text, pair in zip(asked.texts, asked.pairs, strict=True)]
    apart = sum(not _alike(tokenizer(*texts), reading, expert) for texts, reading in zip(given, asked.readings, strict=True))
    if labelling.by_word:
        where = "last" if expert.layout.causal else "first"
        yield f"A word's answer stands at its {where} token. Texts are cut into words at white space, signs and every Han character before they are tokenised."
        if apart:
            what = f"The tokenizer cuts {apart} of {len(given)} whole texts into other tokens than word by word"
            yield f"{what}: give it words, each with the blanks before it."
    elif apart == len(given):
        raise GateRefused("not exported: the tokenizer as plain transformers loads it cuts every text into other tokens\n    -> report this base model")
    elif apart:
        yield f"{apart} of {len(given)} texts hold control tokens, which the expert reads as characters: give the tokenizer split_special_tokens=True."
    if any(pair for pair in asked.pairs) and not separate:
        yield "Two texts are read as one, with an empty line between them: this tokenizer has no separator."
    yield f"Texts of more than {labelling.maximum_tokens} tokens were not learnt, and the expert does not answer to them."


def _alike(found: Mapping[str, Any], reading: Reading, expert: Labeller) -> bool:
    """Return whether a tokenizer gives the tokens of a reading and, where the model tells two texts apart, says which are of the second."""
    kinds = list(reading.kinds) if expert.layout.kinds and any(reading.kinds) else None
    return found["input_ids"] == list(reading.tokens) and (kinds is None or found.get("token_type_ids") == kinds)


def _given(text: str, pair: str | None, *, separate: bool) -> list[str]:
    """Return what a tokenizer is given: both texts where it has a separator, else both with an empty line between them."""
    if pair is None:
        return [text]
    return [text, pair] if separate else [f"{text}\n\n{pair}"]


def _use(labelling: Labelling, expert: Labeller) -> str:
    kind = "AutoModelForTokenClassification" if labelling.by_word else "AutoModelForSequenceClassification"
    lines = [
        f"from transformers import {kind}, AutoTokenizer",
        f"model = {kind}.from_pretrained(FOLDER)",
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
    ]
    if labelling.by_word and not expert.layout.causal:
        return "\n".join([*lines, "# or: pipeline('token-classification', model=FOLDER, aggregation_strategy='first')"])
    return "\n".join(lines if labelling.by_word else [*lines, "# or: pipeline('text-classification', model=FOLDER)"])
