"""A plain transformers folder: the base model's files with the adapter added to the weights, compared with the original before it is shown to anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from metier.deploy.golden import ANSWER_TOKENS, chosen, cut_at_once
from metier.deploy.subject import Made, Subject, Wish
from metier.deploy.tokenizers import copy_model_files, copy_tokenizer
from metier.errors import GateRefused, ModelError
from metier.models.changes import Change, weight_changes
from metier.models.chat import Chat
from metier.models.load import load_weights
from metier.models.local import LocalModel
from metier.models.merge import merge_weights, stored_tensors
from metier.models.methods import open_saved
from metier.models.parity import Golden, Limits, Parity, adapter_effect, compare, golden, own_logits, plain_logits
from metier.models.saved import Saved, read_saved
from metier.models.tokenizer import load_tokenizer
from metier.progress import Progress
from metier.store import write_atomically

__all__ = ["LIMITS", "Original", "check_merged", "measured_facts", "plain_model", "refuse", "write_merged"]

LIMITS: Mapping[str, Limits] = {
    "F32": Limits(divergence=1e-6, largest=0.01, tie=0.01, share=0.01),
    "F16": Limits(divergence=1e-3, largest=1.0, tie=0.1, share=0.1),
    "BF16": Limits(divergence=1e-3, largest=1.0, tie=0.1, share=0.1),
}
"""What may differ after merging, by the base's own format. In fp32 only the order of sums differs. Rounding the sum to bf16 cost an adapter of
Gemma 3 270M 0.5 % of its effect and 6e-6 nats a token; the limits leave more than tenfold room, and a scale, a layer or a template that is
wrong lies beyond them by orders of magnitude."""

TASK = "export"


@dataclass(frozen=True, slots=True)
class Original:
    """The expert as Metier runs it, over the conversations to compare on: its answers and logits, in fp32, and what the adapter does in them."""

    chat: Chat
    changes: Mapping[str, Change]
    saved: Saved
    names: tuple[str, ...]
    rows: Sequence[Golden]
    logits: Sequence[torch.Tensor]
    effect: float

    @property
    def whole(self) -> list[tuple[str, Golden]]:
        """Text and tokens of the prompts that are cut into the same tokens at once as in pieces; the others cannot be compared by tokens."""
        return [(self.chat.render(row.messages, answering=True), row) for row in self.rows if cut_at_once(self.chat, row.messages)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the tokens of the conversations show."""
        apart = len(self.rows) - len(self.whole)
        return (f"{apart} of {len(self.rows)} conversations are cut into other tokens at once than in pieces, as training did.",) if apart else ()


def check_merged(subject: Subject) -> None:
    """Raise ModelError for a base that no adapter is merged into, and for a template that is not the one of training."""
    stored_tensors(subject.base.folder)
    chat = Chat(load_tokenizer(subject.base))
    if chat.digest != subject.adapter.facts["template"] or str(chat.tokenizer.chat_template) != subject.template:
        raise ModelError(
            "the base model's chat template is not the one that the adapter was trained with, so its answers would not be those of training\n"
            "    -> restore the base model's tokenizer, or train again"
        )


def original_of(subject: Subject, wish: Wish, progress: Progress) -> Original:
    """Return the expert as Metier runs it over the conversations to compare on. Raises InputError if there is none."""
    model = load_weights(subject.base, torch.float32)
    saved = read_saved(subject.adapter.path, base=subject.base.digest)
    changes = weight_changes(model, saved)
    tuned = open_saved(model, saved)
    ours = LocalModel(model.eval(), Chat(load_tokenizer(subject.base)), tuned)
    asked = chosen(subject.dataset, ours.chat, wish.prompts)
    progress.start("answers", len(asked), "conversations")
    rows = golden(ours, [prompt for _, prompt in asked], answer_tokens=ANSWER_TOKENS)
    logits = own_logits(ours, rows)
    effect = adapter_effect(ours, rows, logits)
    progress.advance("answers", len(asked))
    progress.finish("answers")
    return Original(ours.chat, changes, saved, tuple(name for name, _ in asked), rows, logits, effect)


def write_merged(subject: Subject, folder: Path, wish: Wish, progress: Progress) -> tuple[Made, Original]:
    """Write the merged model into a folder and compare it, as plain transformers loads it, with the expert. Raises GateRefused beyond the limits."""
    original = original_of(subject, wish, progress)
    copy_model_files(subject.base.folder, folder)
    copy_tokenizer(subject.base.folder, folder, subject.template)
    _stop_where_training_stops(folder, original.chat)
    progress.start("merging", len(original.changes), "tensors")
    merge_weights(subject.base.folder, original.changes, folder, step=lambda _: progress.advance("merging"))
    progress.finish("merging")
    _check_tokens(folder, original)
    parity = compare(original.logits, plain_logits(plain_model(folder), original.rows), effect=original.effect)
    kind = coarsest(folder)
    refuse(parity, LIMITS[kind], f"the merged model ({kind}) does not answer as the adapter on its base does")
    use = "\n".join(
        [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "model = AutoModelForCausalLM.from_pretrained(FOLDER)",
            "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
        ]
    )
    return Made(measured_facts(parity), limit_facts(LIMITS[kind]), original.notes, use, original.names), original


def plain_model(folder: Path) -> Any:
    """Return the model in a folder as plain transformers loads it, in fp32."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True).eval()


def coarsest(folder: Path) -> str:
    """Return the number format of a model folder: the one with the widest limits, if there are several."""
    return max({item.dtype for item in stored_tensors(folder).values()}, key=lambda kind: LIMITS[kind].divergence)


def _stop_where_training_stops(folder: Path, chat: Chat) -> None:
    """Let plain generation end an answer at the tokens that end one in training: a base's own configuration may only know its end of text."""
    path = folder / "generation_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    known = config.get("eos_token_id")
    stops = sorted(chat.stop_tokens | set(known if isinstance(known, list) else [] if known is None else [known]))
    config["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    write_atomically(path, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def _check_tokens(folder: Path, original: Original) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.chat_template != original.chat.tokenizer.chat_template:
        raise GateRefused(
            "not exported: the tokenizer as plain transformers loads it has another chat template than training had\n    -> report this base model"
        )
    for text, row in original.whole:
        if tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) != row.prompt:
            raise GateRefused("not exported: the tokenizer as plain transformers loads it cuts a conversation into other tokens\n    -> report this base model")


def refuse(parity: Parity, limits: Limits, what: str, *, over: str = "conversations") -> None:
    """Raise GateRefused with what was measured if a comparison lies beyond its limits; `over` names what was compared."""
    if faults := parity.faults(limits):
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise GateRefused(
            f"not exported: {what}, over {parity.places} places in {parity.conversations} {over}:\n{lines}\n"
            "    -> nothing was published; keep base and adapter apart (--format peft), or store the base in a finer format"
        )


def measured_facts(parity: Parity) -> dict[str, Any]:
    """Return what was measured, rounded for a manifest: five digits say what there is to say."""
    return {key: [_rounded(item) for item in value] if isinstance(value, list) else _rounded(value) for key, value in parity.as_facts().items()}


def limit_facts(limits: Limits) -> dict[str, Any]:
    """Return the limits that were kept."""
    return {"divergence": limits.divergence, "largest": limits.largest, "tie": limits.tie, "share": limits.share}


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
