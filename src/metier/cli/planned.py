"""A plan as people read it: short tables, the decision and its reasons in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from metier.cli.console import clean, span
from metier.cli.results import number
from metier.models.methods import METHODS

__all__ = ["show_bases", "show_plan"]

_WAYS = {
    "alone": "question alone",
    "examples": "with examples",
    "nearest": "with nearest found",
    "copied": "nearest copied",
    "encoded": "nearest by vectors copied",
    "frequent": "most frequent",
}
_ROLES = {"project": "as the project file says", "nearest": "nearest that can be done", "recommended": "recommended"}
_NOT_COPIED = ("regression", "pair", "tagging")
_PARTS = ("process", "weights", "trained", "gradients", "optimiser", "activations", "logits", "working", "holes")


def show_plan(console: Console, project: str, facts: Mapping[str, Any]) -> None:
    """Print what `metier.training.planning.advise` returned."""
    data, base, machine = facts["data"], facts["base"], facts["machine"]
    left = f" ({data['dropped']} left out)" if data["dropped"] else ""
    console.print(f"project    {project}: {data['examples']:,} examples{left}; {data['steps']:,} steps in {data['epochs']:g} epochs")
    if facts["joint"] is not None:
        each = ", ".join(f"{clean(name)} {count:,}" for name, count in facts["joint"]["examples"].items())
        console.print(f"together   {each} examples; an expert has {_count(facts['joint']['expert_parameters'])} trained numbers: the shared part and its own")
    console.print(f"tokens     {data['tokens']:,} read, {data['learnt_tokens']:,} learnt; the longest example has {data['longest']:,}")
    console.print(f"base       {clean(base['name'])}: {_count(base['parameters'])} parameters, {base['family']}, licence: {clean(base['licence'])}")
    console.print(f"machine    {clean(machine['name'])}, {machine['memory_bytes'] / 1e9:.1f} GB, {_format(machine['precision_bytes'])}")
    _show_prompting(console, facts)
    _show_gaps(console, facts["gaps"] or (), facts["stages"])
    _show_decision(console, facts["decision"], facts["warnings"])
    _show_estimates(console, facts)
    for line in _notes(facts):
        console.print(line, soft_wrap=True)


def _show_prompting(console: Console, facts: Mapping[str, Any]) -> None:
    console.print()
    if not facts["prompting"]:
        why = "not asked" if facts["prompting"] is None else "no validation record to ask"
        if facts["prompting"] is not None and facts.get("task") in _NOT_COPIED:
            why = f"answers of the task {facts['task']} are not copied from other texts"
        console.print(f"{_question(facts).capitalize()} {why}.")
        return
    ways = [way for way in _WAYS if any(way in row["scores"] for row in facts["prompting"])]
    # Of labels the most frequent answer is one of the ways, with its interval; of answers a figure beside them.
    beside = [] if "frequent" in ways else ["most frequent"]
    table = Table(title=f"{_question(facts)} (good enough: {facts['target']:.2f} right)", title_justify="left", box=None, pad_edge=False)
    for name in ("task", "measure"):
        table.add_column(name)
    for name in (*(_WAYS[way] for way in ways), *beside, "items"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in facts["prompting"]:
        kind = "share right" if row["kind"] == "choice" else "bits a character, lower is better"
        scores = [_interval(row["scores"].get(way)) for way in ways]
        table.add_row(clean(row["family"]), kind, *scores, *(number(row["most_frequent_answer"], 2) for _ in beside), str(row["items"]), row["verdict"])
    console.print(table)
    for line in facts["conclusion"]:
        console.print(clean(line), soft_wrap=True)


def _question(facts: Mapping[str, Any]) -> str:
    return "would copying do?" if facts.get("task") else "would prompting do?"


def _interval(score: Mapping[str, float] | None) -> str:
    return "-" if score is None else f"{score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"


def _show_gaps(console: Console, gaps: Sequence[Mapping[str, Any]], stages: Mapping[str, Any] | None) -> None:
    if not gaps:
        return
    table = Table(title="how far from what the base model knows?", title_justify="left", box=None, pad_edge=False)
    for name in ("task", "domain", "kind"):
        table.add_column(name)
    for name in ("bits a character", "everyday prose", "more", "records"):
        table.add_column(name, justify="right")
    table.add_column("gap")
    for row in gaps:
        bits = (number(row["bits_a_character"], 2), number(row["prose_bits_a_character"], 2), f"{row['share']:+.0%}")
        table.add_row(clean(row["task"]), clean(row["domain"]), row["kind"], *bits, str(row["records"]), row["level"])
    console.print()
    console.print(table)
    if stages is None:
        console.print("One stage does: nothing here has to come before the rest.")
        return
    console.print("Near before far, texts before answers would be, under training: (and without epochs: there)")
    console.print(clean(yaml.safe_dump(dict(stages), allow_unicode=True, sort_keys=False, default_flow_style=None).rstrip()), soft_wrap=True)


def _show_decision(console: Console, decision: Mapping[str, Any], warnings: Sequence[str]) -> None:
    console.print()
    method = decision["method"]
    besides = "".join(f" with {name}" for name in decision["besides"])
    console.print(f"Decision: train by {_named(method)}{besides}.", style="bold", soft_wrap=True)
    for line in (*decision["reasons"], *decision["notes"]):
        console.print(f"  {clean(line)}", soft_wrap=True)
    for line in warnings:
        console.print(f"  {clean(line)}", style="red", soft_wrap=True)
    console.print()


def _named(method: Mapping[str, Any]) -> str:
    low_rank = METHODS[method["name"]].low_rank
    return f"{method['name']} of rank {method['rank']}" if low_rank else str(method["name"])


def _with_parts(row: Mapping[str, Any]) -> str:
    """Return a method with its rank, or with the ranks of its shared part and of each project's own."""
    ranks = row["ranks"]
    if ranks is None:
        return _named(row["method"])
    return f"{row['method']['name']}, {ranks['shared']} shared + {ranks['members']} x {ranks['own']} own"


def _show_estimates(console: Console, facts: Mapping[str, Any]) -> None:
    table = Table(title="what it takes", title_justify="left", box=None, pad_edge=False)
    for name in ("on", "method", "for"):
        table.add_column(name)
    for name in ("trained", "memory", "of", "PFLOP", "time"):
        table.add_column(name, justify="right")
    priced = any(row["cost"] is not None for row in facts["estimates"])
    if priced:
        table.add_column("cost", justify="right")
    for row in facts["estimates"]:
        memory = f"{row['memory']['total'] / 1e9:.2f} GB" + ("" if row["fits"] else " (too much)")
        cells = [row["machine"], _with_parts(row), _ROLES[row["role"]], _count(row["trainable_parameters"]), memory, f"{row['memory_bytes'] / 1e9:.0f} GB"]
        cells += [f"{row['flops'] / 1e15:.3g}", _range(row["seconds"])]
        if priced:
            cells.append("-" if row["cost"] is None else _amounts(row["cost"]))
        table.add_row(*cells)
    console.print(table)
    first = facts["estimates"][0]["memory"]
    parts = ", ".join(f"{name} {first[name] / 1e6:,.0f}" for name in _PARTS if first[name])
    console.print(f"memory of the first row, in MB: {parts}", soft_wrap=True)


def _notes(facts: Mapping[str, Any]) -> Iterator[str]:
    measured = facts["calibration"]
    if measured is None:
        yield "Not calibrated: the times are ranges at usual shares of the machine's peak."
    else:
        rate = measured["tokens"] / measured["seconds"]
        yield f"Calibrated over {measured['steps']} steps: {rate:.0f} tokens/s, {measured['flops'] / 1e9:.0f} GFLOP/s. Early stopping may end sooner."
    if any(row["machine"] != "here" for row in facts["estimates"]):
        yield "Accelerators: counted, not measured; times at 20 to 46 % of the specified peak; their drivers take some hundred MB more."
    if any(row["method"]["name"] not in facts["available"] for row in facts["estimates"]):
        yield "Methods that cannot be trained here are counted by their formulas."
    if facts["cache_bytes_a_token"] is None:
        return
    yield f"Generating keeps {facts['cache_bytes_a_token'] / 1024:.0f} KiB of keys and values a token; training keeps none."


def show_bases(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what `metier.training.planning.compare_bases` returned."""
    table = Table(title="base models on your data, the best first", title_justify="left", box=None, pad_edge=False)
    table.add_column("model")
    for name in ("bits a character", "right with examples", "items", "tokens a character", "parameters", "on disk"):
        table.add_column(name, justify="right")
    for name in ("licence", "note"):
        table.add_column(name)
    for row in rows:
        cut = ", ".join(f"{language} {value:.2f}" for language, value in (row["tokens_a_character"] or {}).items()) or "-"
        size = "-" if row["parameters"] is None else _count(row["parameters"])
        cells = [clean(Path(row["name"]).name), _interval(row["bits_a_character"]), _interval(row["few_shot"]), str(row["few_shot_items"] or "-"), cut, size]
        table.add_row(*cells, f"{row['bytes'] / 1e9:.2f} GB", clean(row["licence"]), clean(row["note"]))
    console.print(table)
    console.print("Fewer bits a character: the model knows such texts better, whatever its tokenizer. Fewer tokens a character: cheaper to train and serve.")


def _count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _format(precision: int) -> str:
    return "frozen weights in bf16" if precision == 2 else "frozen weights in fp32"


def _range(seconds: Sequence[float]) -> str:
    low, high = (span(value) if value >= 1 else "under 0:01" for value in seconds)
    return low if low == high else f"{low} to {high}"


def _amounts(cost: Sequence[float]) -> str:
    low, high = (f"{value:.2f}" if value >= 1 else f"{value:.2g}" for value in cost)
    return low if low == high else f"{low} to {high}"
