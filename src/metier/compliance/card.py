"""The model card: what the expert is for, what it was made of, what it scored with intervals, and what is not known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from metier.compliance.dossier import Dossier

__all__ = ["model_card"]

_SOURCE = ("uri", "rows", "licence", "basis", "sha256")
_LIMITS = (
    "Scores are those of the held-out items named here; other questions, wordings and populations were not asked.",
    "An interval says how far chance may have moved a score, not whether the items are the right ones.",
    "Identifiers are found by rules; what no rule describes is not found. Bounds are in the evidence.",
    "Whether training text can be drawn out of the model was not measured unless a control above says so.",
    "Controls are mapped to clauses. No control, and not all of them together, says that a regulation is complied with.",
)


def model_card(dossier: Dossier) -> str:
    """Return the card as Markdown (after Mitchell et al., Model Cards for Model Reporting, 2019). It holds no text of any record."""
    parts = (_head, _use, _data, _training, _results, _decision, _limits)
    return "\n".join(line for part in parts for line in part(dossier)) + "\n"


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _head(dossier: Dossier) -> Iterator[str]:
    subject = dossier.subject
    yield f"# Model card: {_cell(dossier.project)}"
    yield ""
    released = "not released" if dossier.release is None else f"released as {dossier.release.facts['name']} (`{dossier.release.digest}`)"
    rows = [("adapter", f"`{subject.adapter.digest}`"), ("base model", f"{subject.base.name} (`{subject.base.digest}`)")]
    rows += [("licence of the base model", subject.base.licence), ("state", released)]
    rows.append(("decision", f"{dossier.decision.facts['verdict']} (`{dossier.decision.digest}`)"))
    yield from _table(("what", "which"), rows)


def _use(dossier: Dossier) -> Iterator[str]:
    pack = dossier.pack
    tasks = sorted(dossier.subject.dataset.facts["counts"]["task"])
    languages = ", ".join(dossier.subject.dataset.facts["languages"])
    yield "## Intended use"
    yield ""
    yield f"The domain of the pack {_cell(pack.facts.name)} {_cell(pack.facts.version)} ({_cell('; '.join(pack.facts.title.values()))}), in {languages}."
    yield f"It was trained for: {_cell(', '.join(tasks))}. It was not measured for anything else, and is not meant for it."
    yield ""
    texts = [rule.text for rule in pack.guard if rule.action == "disclaim"]
    if texts:
        yield "Its answers carry these notices where they are due:"
        yield ""
        yield from (f"- {_cell(text)}" for item in texts for text in item.values())
        yield ""


def _data(dossier: Dossier) -> Iterator[str]:
    facts = dossier.subject.dataset.facts
    splits = ", ".join(f"{count} {split}" for split, count in facts["counts"]["split"].items())
    yield "## Data"
    yield ""
    yield f"{facts['records']} records ({splits}); the data card beside this one says more."
    yield ""
    rows = ([entry["uri"], entry["rows"], entry["licence"], entry["basis"] or "not stated", entry["sha256"]] for entry in facts["register"])
    yield from _table(("source", "rows", "licence", "basis", "SHA-256"), rows)
    companions = dossier.subject.companions
    if companions:
        shares = "; ".join(f"{item['project']} ({item['examples']} examples, dataset `{item['dataset']}`)" for item in companions)
        yield f"A part of the adapter was trained together with other projects, and their data has shaped it: {_cell(shares)}."
        yield "Their records are not among those above. Whoever asks what a person or a file has reached has to ask here for these projects too."
        yield ""
        theirs = ([item["project"], *(entry[name] or "not stated" for name in _SOURCE)] for item in companions for entry in item["sources"])
        yield from _table(("project", "source", "rows", "licence", "basis", "SHA-256"), theirs)


def _training(dossier: Dossier) -> Iterator[str]:
    facts = dossier.subject.run.facts
    adapter = dossier.subject.adapter.facts
    yield "## Training"
    yield ""
    rows: list[tuple[str, Any]] = [("method", _method(adapter)), ("trained numbers", adapter["trainable_parameters"])]
    rows += [(name.replace("_", " "), facts[name]) for name in ("examples", "steps", "tokens", "seconds", "final_loss", "validation_loss")]
    if teacher := facts.get("teacher"):
        rows.append(("taught by", f"{teacher['name']}, licence {teacher['licence'] or 'not stated'}, {teacher['digest']}"))
    rows.append(("privacy", _privacy(facts.get("privacy"))))
    environment = facts["environment"]
    rows.append(("made with", ", ".join(f"{name} {version}" for name, version in environment["packages"].items())))
    yield from _table(("what", "value"), rows)


def _privacy(promised: Mapping[str, Any] | None) -> str:
    if promised is None:
        return "no bound on what one person's records can change"
    return f"epsilon {promised['epsilon']:.2f} at delta {promised['delta']:.1g} for each unit ({promised['unit']}); covers {promised['covers']}"


def _method(adapter: Mapping[str, Any]) -> str:
    return str(adapter["method"]) if adapter["rank"] is None else f"{adapter['method']}, rank {adapter['rank']}"


def _interval(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "not defined"
    bounds = "" if value["low"] is None or value["high"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value['value']:.3f}{bounds}"


def _results(dossier: Dossier) -> Iterator[str]:
    facts = dossier.subject.evaluation.facts
    yield "## Results"
    yield ""
    yield f"Base model and expert were asked the same items; {facts['confidence']:.0%} intervals."
    yield ""
    figures = [(task, metric, row) for task, metrics in facts["tasks"].items() for metric, row in metrics.items()]
    rows = ([task, metric, *(_interval(row[side]) for side in ("base", "tuned", "delta")), row["n"], row["verdict"]] for task, metric, row in figures)
    yield from _table(("task", "metric", "base", "expert", "difference", "n", "verdict"), rows)
    kept = facts["retention"]
    if kept is not None and kept["retention"] is not None:
        yield f"Kept of the base model's general ability: {_interval(kept['retention'])}, n {kept['n']}."
    else:
        yield "What is kept of the base model's general ability was not measured, or cannot be."
    yield ""


def _decision(dossier: Dossier) -> Iterator[str]:
    facts = dossier.decision.facts
    yield "## Decision"
    yield ""
    yield f"{facts['verdict']}; author {_cell(facts['author'])}, approved by {_cell(', '.join(facts['approved_by']) or 'nobody')}."
    yield ""
    rows = ([name, entry["clause"], entry["status"], entry["why"]] for name, entry in facts["controls"].items())
    yield from _table(("control", "mapped to", "status", "why"), rows)


def _limits(_: Dossier) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield from (f"- {limit}" for limit in _LIMITS)
