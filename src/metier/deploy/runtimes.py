"""A written GGUF file in a real llama.cpp: the template, the tokens, the logits and the greedy answers have to be those of the merged model there, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch

from metier.deploy.golden import ANSWER_TOKENS
from metier.deploy.merged import Original, limit_facts, measured_facts, refuse
from metier.deploy.subject import Wish
from metier.errors import GateRefused, MissingExtra
from metier.models.ggufcheck import prompt_faults
from metier.models.parity import Golden, Limits, Parity, compare, first_difference
from metier.models.runtime import Question, Runtime, ask, at_hand

__all__ = ["LIMITS", "answer_faults", "check_installed", "probes", "run_in_llama", "text_faults"]

LIMITS: Mapping[str, Limits] = {
    "f32": Limits(divergence=1e-5, largest=0.5, tie=0.05),
    "f16": Limits(divergence=1e-3, largest=2.0, tie=0.1),
    "bf16": Limits(divergence=1e-3, largest=2.0, tie=0.1),
    "q8_0": Limits(divergence=1e-2, largest=8.0, tie=0.5),
}
"""What may differ from the merged model in llama.cpp, by the type of the file. It attends in fp16, and multiplies in the file's own type, what transformers
reads back and multiplies in fp32. Measured with an adapter on Gemma 3 270M (benchmarks/export.py): 4e-8 nats and 0.08 of a logit in f32, 9e-8 and 0.10 in f16,
6e-6 and 0.52 in bf16, 4e-4 and 4.4 in q8_0, the largest of 262,144 logits at 76 places, with the same greedy answers."""


def probes() -> list[str]:
    """Return texts on which tokenizers part: digits, signs, blanks, line ends, emoji, rare and full-width characters, what looks like a control token.

    They are in Unicode's form NFC: llama.cpp does not normalise, and of a tokenizer that does, the card says so.
    """
    found = json.loads(resources.files("metier.deploy").joinpath("data/probes.json").read_text(encoding="utf-8"))
    return [normalize("NFC", text) for text in found]


def check_installed(wish: Wish) -> None:
    """Raise MissingExtra if llama.cpp was asked for and is not installed."""
    if wish.runtime and not at_hand():
        raise MissingExtra("llama-cpp-python", "llama", "--check llama.cpp")


def run_in_llama(path: Path, original: Original, reference: Sequence[torch.Tensor], kind: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Run a file in llama.cpp and return what was measured, its limits and what a reader has to know. Raises GateRefused beyond the limits."""
    chat, tokenizer = original.chat, original.chat.tokenizer
    whole = original.whole
    unusual = probes()
    conversations = [chat.plain(row.messages) for row in original.rows]
    question = Question([*(text for text, _ in whole), *unusual], original.rows, conversations, ANSWER_TOKENS, chat.stop_tokens)
    found = ask(path, question)
    rendered = [chat.render(row.messages, answering=True) for row in original.rows]
    faults = [*text_faults(found, tokenizer, rendered, [row for _, row in whole])]
    faults += answer_faults(found, original.rows, reference, LIMITS[kind].tie)
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise GateRefused(
            f"not exported: llama.cpp does not read the file as training did:\n{lines}\n    -> nothing was published; export with --format merged"
        )
    parity = compare(reference, found.logits)
    refuse(parity, LIMITS[kind], f"llama.cpp, given the file ({kind}), does not answer as the merged model does")
    return _measured(found, parity, original), limit_facts(LIMITS[kind]), list(_notes(found, tokenizer, unusual))


def _measured(found: Runtime, parity: Parity, original: Original) -> dict[str, Any]:
    alike = sum(_parting(answer, row) is None for answer, row in zip(found.answers, original.rows, strict=True))
    return {"version": f"llama-cpp-python {found.version}", **measured_facts(parity), "answers": f"{alike} of {len(found.answers)}"}


def _notes(found: Runtime, tokenizer: Any, unusual: Sequence[str]) -> Iterator[str]:
    tokens = found.tokens[len(found.tokens) - len(unusual) :]
    apart = [text for text, row in zip(unusual, tokens, strict=True) if tokenizer(text, add_special_tokens=False)["input_ids"] != list(row)]
    if apart:
        yield f"llama.cpp cuts {len(apart)} of {len(unusual)} unusual texts into other tokens than the base's tokenizer: {', '.join(map(ascii, apart))}."


def text_faults(found: Runtime, tokenizer: Any, rendered: Sequence[str], rows: Sequence[Golden]) -> Iterator[str]:
    """Yield where template, rendering or the tokens of conversations are not those of training; the first of `found.tokens` are those of `rows`."""
    if found.template != str(tokenizer.chat_template):
        yield "the chat template that it finds in the file is not the one of training"
    for number, (ours, theirs) in enumerate(zip(rendered, found.rendered, strict=True)):
        if ours != theirs:
            yield f"conversation {number} is rendered otherwise"
    yield from prompt_faults(found.tokens[: len(rows)], rows, tokenizer)


def answer_faults(found: Runtime, rows: Sequence[Golden], reference: Sequence[torch.Tensor], tie: float) -> Iterator[str]:
    """Yield which greedy answers part from the expert's where the merged model prefers its own next token by more than `tie`, in logits."""
    for number, (answer, row, logits) in enumerate(zip(found.answers, rows, reference, strict=True)):
        place = _parting(answer, row)
        if place is None:
            continue
        gap = float(logits[place].max() - logits[place, answer[place]])
        if not gap <= tie:
            yield f"the greedy answer to conversation {number} parts at token {place}, where the merged model prefers its own by {gap:.2g}, at most {tie:g}"


def _parting(answer: Sequence[int], row: Golden) -> int | None:
    # A row holds its answer without the last token, behind which nothing is compared.
    return first_difference(answer, row.tokens[row.first + 1 :])
