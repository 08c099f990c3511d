"""Checks of the expert itself: its files, its scores on held-out data, what it kept, and the log that it was written into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from metier.artifacts import Artifact
from metier.compliance.checks.case import Case, lineage_rows, some
from metier.compliance.measurement import Measurement
from metier.digest import digest_of
from metier.models.adapterfile import ADAPTER_FILES, adapter_faults
from metier.shards import dataset_records

__all__ = ["held_out_evaluation", "ledger_intact", "retention", "safe_formats"]

_RETENTION = "retention"
_LOSS = "loss"


def safe_formats(case: Case) -> Measurement:
    """Look at the adapter's files: safetensors only, rank and shapes as the run says, every number finite, made for this base model."""
    subject = case.subject
    adapter = subject.adapter
    faults = adapter_faults(adapter.path, rank=adapter.facts["rank"], base=subject.base.digest, trained_on=adapter.facts["base"]["digest"])
    faults += [f"{name} does not belong into an adapter" for name in adapter.files if name not in ADAPTER_FILES]
    faults += [f"{name} was changed after training" for name in case.store.damaged(adapter)]
    return Measurement(
        check="safe_formats",
        value=float(len(faults)),
        n=len(adapter.files),
        unit="faults in the adapter's files",
        better="lower",
        how="header, shapes, number formats and all values of the weights read; configuration and file names checked",
        faults=tuple(faults),
        inputs={"adapter": adapter.digest, "base": subject.base.digest},
        details={"files": {name: dict(facts) for name, facts in adapter.files.items()}, "rank": adapter.facts["rank"]},
    )


def held_out_evaluation(case: Case) -> Measurement:
    """Say whether the evaluation asked what was not trained on, has a number for every task, and shows no clear loss.

    The share is that of the items that lie outside the training split: by their record, or by their prompt where a task brings
    its own items. A loss is the verdict of the evaluation on a task's first metric; the retention probe is judged elsewhere.
    """
    subject = case.subject
    facts = subject.evaluation.facts
    table = {task: rows for task, rows in facts["tasks"].items() if task != _RETENTION}
    faults = [] if subject.evaluation.parents == (subject.dataset.digest, subject.adapter.digest) else ["the evaluation is that of another adapter or dataset"]
    faults += [f"the task {task} was asked and has no result" for task in facts["items"] if task not in facts["tasks"]]
    for task, rows in table.items():
        faults += _row_faults(task, rows)
    asked, inside = _placed(case)
    faults += [f"no answer is kept for the task {task}" for task in table if task not in asked]
    if inside:
        faults.append(f"{inside} items were trained on")
    for item in subject.companions:
        if item["held_out_here"]:
            faults.append(f"{item['held_out_here']} held-out questions were trained on as records of the project {item['project']}")
    total = sum(asked.values())
    return Measurement(
        check="held_out_evaluation",
        value=(total - inside) / total if total else None,
        n=total,
        unit="share of asked items that were not trained on",
        better="higher",
        how="every kept answer led back to its record or prompt; verdicts are those of the evaluation, corrected for the number of tasks",
        faults=tuple(faults),
        undecided=None if table else "no task was asked beside the retention probe; add pack or held-out to evaluation.tasks",
        inputs={"evaluation": subject.evaluation.digest, "dataset": subject.dataset.digest, "adapter": subject.adapter.digest},
        details={"asked": asked, "verdicts": {task: next(iter(rows.values()))["verdict"] for task, rows in table.items() if rows}},
    )


def _row_faults(task: str, rows: Mapping[str, Any]) -> Iterator[str]:
    if not rows:
        yield f"the task {task} has no metric"
        return
    for metric, row in rows.items():
        empty = [f"{side} {name}" for side in ("base", "tuned", "delta") for name in ("value", "low", "high") if row[side][name] is None]
        if empty and row["tuned"]["value"] is None:
            yield f"{task}, {metric}: not a number ({some(empty)})"
        if row["n"] < 1:
            yield f"{task}, {metric}: no item was asked"
    first, row = next(iter(rows.items()))
    if row["verdict"] == _LOSS:
        yield f"the expert is clearly worse than its base model in {task} ({first})"


def _placed(case: Case) -> tuple[dict[str, int], int]:
    """Return how many items each task asked, and how many of all were trained on."""
    dataset, evaluation = case.subject.dataset, case.subject.evaluation
    splits = {row["record_id"]: row["split"] for row in lineage_rows(dataset, ("record_id", "split"))}
    prompts: set[str] | None = None
    asked: dict[str, int] = {}
    inside = 0
    names = _sample_names(evaluation)
    for task in evaluation.facts["tasks"]:
        if task == _RETENTION or task not in names:
            continue
        for row in _rows(evaluation, names[task]):
            asked[task] = asked.get(task, 0) + 1
            if row["record_id"]:
                inside += splits.get(row["record_id"]) not in ("test", "validation")
                continue
            prompts = _trained_prompts(dataset) if prompts is None else prompts
            inside += digest_of([[message["role"], message["content"]] for message in row["prompt"]]) in prompts
    return asked, inside


def _sample_names(evaluation: Artifact) -> dict[str, str]:
    plain = {name.removeprefix("samples/").removesuffix(".jsonl"): name for name in evaluation.files if name.startswith("samples/")}
    # A task whose name is no file name has a digest of it at the end of its file's name.
    odd = {task: name for task in evaluation.facts["tasks"] for stem, name in plain.items() if stem.endswith(f"-{digest_of(task)[:8]}")}
    return {**plain, **odd}


def _rows(evaluation: Artifact, name: str) -> Iterator[dict[str, Any]]:
    with evaluation.file(name).open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _trained_prompts(dataset: Artifact) -> set[str]:
    found = set()
    for record in dataset_records(dataset, "train"):
        last = max((place for place, message in enumerate(record.messages) if message.learn), default=0)
        found.add(digest_of([[message.role, message.content] for message in record.messages[:last]]))
    return found


def retention(case: Case) -> Measurement:
    """Take what the evaluation says is kept of general ability; the gate tests the interval's lower bound.

    R = mean over families of clip((tuned - chance) / (base - chance), 0, 1.05), where the base is clearly above chance.
    """
    evaluation = case.subject.evaluation
    facts = evaluation.facts["retention"]
    kept = facts["retention"] if facts is not None else None
    reason = None
    if "task" in case.subject.adapter.facts:
        reason = "the expert labels texts and does not write, so the retention probe cannot be asked"
    elif facts is None:
        reason = "the retention probe was not asked; add retention to evaluation.tasks"
    elif kept is None:
        reason = "the base model is not clearly above chance in any family of the probe, so nothing can be said of what is kept"
    return Measurement(
        check="retention",
        value=None if kept is None else kept["value"],
        n=0 if facts is None else facts["n"],
        unit="share of the base model's ability above chance",
        better="higher",
        how="the evaluation's retention probe, base and tuned on the same items; bootstrap interval",
        low=None if kept is None else kept["low"],
        high=None if kept is None else kept["high"],
        confidence=None if kept is None else evaluation.facts["confidence"],
        undecided=reason,
        inputs={"evaluation": evaluation.digest},
        details={}
        if facts is None
        else {"forgetting": facts["forgetting"], "families": {name: entry["retention"] for name, entry in facts["families"].items()}},
    )


def ledger_intact(case: Case) -> Measurement:
    """Take the result of verifying the log of events: every entry, the tree over them and the signed heads."""
    ledger = case.ledger
    broken = ledger is not None and not ledger.intact
    return Measurement(
        check="ledger_intact",
        value=None if ledger is None else float(ledger.intact),
        n=0 if ledger is None else max(1, ledger.size),
        unit="logs that verify",
        better="higher",
        how="the log was verified from its first entry to its last signed head when this evidence was collected",
        faults=(ledger.fault or "the log does not verify",) if ledger is not None and broken else (),
        undecided="no log of events was given" if ledger is None else None,
        inputs={} if ledger is None else {"root": ledger.root},
        details={} if ledger is None else {"size": ledger.size},
    )
