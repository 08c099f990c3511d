"""Which form of export can hold what a method trains, as data: every cell that is empty has a reason. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from metier.models.methods.names import METHODS

__all__ = ["FORMATS", "TYPES", "Format", "holders", "reason"]

Format: TypeAlias = Literal["merged", "gguf", "vllm", "peft"]
FORMATS: tuple[str, ...] = get_args(Format)
TYPES = ("f32", "f16", "bf16", "q8_0")
"""Numbers of a GGUF file."""

_BENT = "its bottlenecks compute something nonlinear between the base model's weights, and no weights can hold that"
_BEFORE = "its virtual tokens stand before the text and are no part of the base model's weights"
_WHOLE = "it trains the base model's own weights, and that is no low-rank update"

_MERGED: Mapping[str, str] = {"adapter": _BENT, "parallel-adapter": _BENT, "prefix": _BEFORE, "p-tuning": _BEFORE, "prompt": _BEFORE}

REASONS: Mapping[str, Mapping[str, str]] = {
    "merged": _MERGED,
    "gguf": _MERGED,
    "vllm": {
        "dora": "vLLM has no magnitudes of weights",
        "full": _WHOLE,
        "partial": _WHOLE,
        "adapter": "vLLM has no bottleneck adapters",
        "parallel-adapter": "vLLM has no bottleneck adapters",
        "prefix": "vLLM has no virtual tokens",
        "p-tuning": "vLLM has no virtual tokens",
        "prompt": "vLLM has no virtual tokens",
    },
    "peft": {
        "full": "PEFT has no such method: it trains the base model's own weights",
        "partial": "PEFT has no such method: it trains the base model's own weights",
        "adapter": "PEFT has no bottleneck adapters of this kind",
        "parallel-adapter": "PEFT has no bottleneck adapters of this kind",
    },
}
"""For each form the methods that it cannot hold, and why; it holds all others."""

LABEL_REASONS: Mapping[str, str] = {
    "gguf": "runtimes of the llama.cpp family are given experts that answer in words here",
    "vllm": "vLLM's adapters are given experts that answer in words here; it serves a merged folder as a model of its own",
}
"""Forms that hold no expert for labels, spans, numbers or pairs, and why."""


def reason(form: str, method: str, task: str) -> str | None:
    """Return why a form cannot hold an expert of a method and a task, None if it can."""
    return (None if task == "generation" else LABEL_REASONS.get(form)) or REASONS[form].get(method)


def holders(method: str, task: str = "generation") -> list[str]:
    """Return the forms that hold an expert of a method and a task."""
    return [form for form in FORMATS if reason(form, method, task) is None]


def table() -> list[tuple[str, ...]]:
    """Return a row for each method: its name, and for each form of `FORMATS` whether it holds it ("yes" or "")."""
    return [(method, *("yes" if reason(form, method, "generation") is None else "" for form in FORMATS)) for method in METHODS]
