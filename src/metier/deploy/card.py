"""The model card of an export: what it is, whether anybody has released it, the licence of the base, digests, and how far it was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metier.deploy.subject import Made, Subject, Wish

__all__ = ["card"]

_FORMS = {
    "merged": "A plain transformers folder: the base model with the adapter added to its weights.",
    "gguf": "One GGUF file for runtimes of the llama.cpp family: the base model with the adapter added to its weights, tokenizer and chat template inside.",
    "peft": "The adapter as PEFT loads it, with tokenizer and chat template. The base model is not in it.",
    "vllm": "A LoRA adapter as vLLM and PEFT load it, with tokenizer and chat template. The base model is not in it.",
}
_LABEL_FORMS = {
    "merged": "A plain transformers folder with its head: what was trained is in the weights, the labels are in `config.json`.",
    "peft": "The adapter and its head as PEFT loads them, with the tokenizer. The base model is not in it.",
}
_WORDS = {
    "records": "records compared",
    "conversations": "conversations compared",
    "places": "places compared",
    "divergence": "mean divergence, nats a token",
    "largest": "largest difference of a logit",
    "error": "differences, root mean square",
    "effect": "what the adapter changes, root mean square",
    "same": "same greedy choice, share of places",
    "flips": "other greedy choices: by how much the original preferred its own",
    "kind": "PEFT's type",
    "virtual": "virtual tokens",
    "version": "run in",
    "answers": "greedy answers that are the same token for token (others part where two tokens are nearly as likely)",
    "rank": "rank",
    "targets": "adapted layers",
}


def card(subject: Subject, wish: Wish, made: Made) -> str:
    """Return the card as Markdown. It holds no text of any record."""
    parts = (_front(subject), _state(subject), _origin(subject), _measured(made), _use(wish, made, subject))
    return "\n".join(line for part in parts for line in part) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    return " ".join((f"{value:.5g}" if isinstance(value, float) else str(value)).replace("|", "\\|").split())


def _front(subject: Subject) -> Iterator[str]:
    yield "---"
    yield f"license: {_cell(subject.base.licence)}"
    yield f"base_model: {_cell(subject.base.name)}"
    yield "---"
    yield ""
    yield f"# {_cell(subject.project)}"
    yield ""


def _state(subject: Subject) -> Iterator[str]:
    if subject.refusal is not None:
        yield "> **Not released.** No decision lets this expert be served: it was exported for trials only."
        yield from (f"> {_cell(line)}" for line in subject.refusal.splitlines() if not line.lstrip().startswith("->"))
        yield ""
    elif subject.release is not None:
        yield f"Released as {_cell(subject.release.facts['name'])}; the decision and its approval are named below."
        yield ""
    else:
        yield "The decision on this expert passes and somebody else than its author approved it; it has no signed release yet."
        yield ""


def _origin(subject: Subject) -> Iterator[str]:
    facts = subject.adapter.facts
    decision = subject.decision
    yield "## What it comes from"
    yield ""
    yield "| what | which |"
    yield "|---|---|"
    yield f"| base model | {_cell(subject.base.name)} |"
    yield f"| licence of the base model | {_cell(subject.base.licence)} |"
    yield f"| digest of the base model | `{subject.base.digest}` |"
    yield f"| adapter | `{subject.adapter.digest}`, {_cell(_method(facts))} |"
    yield f"| run | `{subject.run.digest}` |"
    yield f"| dataset | `{subject.dataset.digest}` |"
    yield f"| decision | {'none' if decision is None else f'`{decision.digest}`: ' + _cell(decision.facts['verdict'])} |"
    yield f"| approved by | {'nobody' if decision is None else _cell(decision.facts['approved_by']) if decision.facts['approved_by'] else 'nobody'} |"
    yield f"| release | {'none' if subject.release is None else f'`{subject.release.digest}`'} |"
    yield ""
    yield "What is made from a base model falls under its terms as well."
    yield ""


def _method(facts: Mapping[str, Any]) -> str:
    return str(facts["method"]) if facts.get("rank") is None else f"{facts['method']}, rank {facts['rank']}"


def _measured(made: Made) -> Iterator[str]:
    yield "## How far it was checked"
    yield ""
    tables = made.measured if all(isinstance(value, dict) for value in made.measured.values()) else {"": made.measured}
    titles = {
        "merged": "Merged weights against the adapter on its base:",
        "file": "The file, read back, against the merged weights:",
        "llama.cpp": "The file in llama.cpp, against the merged weights:",
    }
    for name, figures in tables.items():
        limits = made.limits.get(name, {}) if name else made.limits
        if name:
            yield titles[name]
            yield ""
        yield "| what | measured | at most |"
        yield "|---|---|---|"
        for key, value in figures.items():
            if value is not None:
                yield f"| {_WORDS[key]} | {_cell(value)} | {_cell(_limit(key, limits, figures))} |"
        yield ""
    yield from (f"- {_cell(note)}" for note in made.notes)
    if made.notes:
        yield ""


def _limit(key: str, limits: dict[str, Any], figures: dict[str, Any]) -> Any:
    if key == "error" and limits.get("share") is not None and figures.get("effect") is not None:
        return limits["share"] * figures["effect"]
    return limits.get({"flips": "tie", "rank": "largest_rank"}.get(key, key), "")


def _use(wish: Wish, made: Made, subject: Subject) -> Iterator[str]:
    yield "## How to use it"
    yield ""
    if subject.task == "generation":
        yield _FORMS[wish.format]
        yield "The chat template is the one of training; conversations have to go through it, and nothing has to be put before them."
    else:
        yield f"{_LABEL_FORMS[wish.format]} It answers with {subject.task}; `labels.json` names task and labels."
    yield ""
    yield "```text"
    yield from made.use.splitlines()
    yield "```"
    yield ""
    yield f"`export.json` names every file with its SHA-256. Project: {_cell(subject.project)}."
