"""What an evaluation leaves on disk: results in lm-eval's shape, every item with both answers, and excerpts for the report."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metier.digest import digest_of
from metier.evaluation.ask import Side
from metier.evaluation.compare import Compared
from metier.evaluation.scorers import Graded
from metier.evaluation.settings import EvaluationSettings

__all__ = ["examples", "lengths", "results_document", "write_samples"]

_SIDES: tuple[Side, ...] = ("base", "tuned")
_ODD = re.compile(r"[^\w.-]+", re.ASCII)


def results_document(compared: Sequence[Compared], facts: Mapping[str, Any], settings: EvaluationSettings) -> dict[str, Any]:
    """Return the content of results.json: lm-eval's keys (results, configs, versions, n-shot, n-samples, higher_is_better) and ours."""
    tasks = [one.task for one in compared]
    return {
        "results": facts["tasks"],
        "configs": {task.name: dict(task.config) for task in tasks},
        "versions": {task.name: task.version for task in tasks},
        "n-shot": {task.name: task.shots for task in tasks},
        "n-samples": {task.name: {"original": task.available, "effective": len(task.items)} for task in tasks},
        "higher_is_better": {name: {metric: row["higher_is_better"] for metric, row in rows.items()} for name, rows in facts["tasks"].items()},
        "settings": settings.model_dump(mode="json"),
        **{name: facts[name] for name in ("format", "chance", "retention", "question", "items", "notes")},
    }


def sample_file(task: str) -> str:
    """Return the file name of a task's samples: its name, or a plain form of it with a digest if it has other characters."""
    plain = _ODD.sub("_", task).lstrip(".")
    return f"{task}.jsonl" if plain == task else f"{plain}-{digest_of(task)[:8]}.jsonl"


def write_samples(folder: Path, one: Compared) -> None:
    """Write one line an item: hashes, prompt, reference, and what each side answered and scored."""
    with (folder / sample_file(one.task.name)).open("w", encoding="utf-8") as stream:
        for index, item in enumerate(one.task.items):
            row: dict[str, Any] = {
                "doc_id": item.id,
                "record_id": item.record_id,
                "language": item.language,
                "doc_hash": item.doc_hash,
                "prompt_hash": item.prompt_hash,
                "target_hash": item.target_hash,
                "prompt": [{"role": message.role, "content": message.content} for message in item.prompt],
                "target": item.target,
                "choices": list(item.choices),
            }
            for side in _SIDES:
                row[side] = _side(one, side, index)
            stream.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def _side(one: Compared, side: Side, index: int) -> dict[str, Any]:
    graded = one.graded[side][index]
    scores = {name: float(pair[side].values[index]) for name, pair in one.measures.items()}
    return {
        **asdict(graded.answer),
        "label": graded.label,
        "valid": graded.valid,
        "abstained": graded.abstained,
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
    }


def _shown(one: Compared, graded: Graded) -> str:
    return graded.label if one.task.kind == "choose" else graded.answer.text


def examples(compared: Sequence[Compared], count: int) -> dict[str, list[dict[str, Any]]]:
    """Return up to `count` items a task for the report: first those that the tuned side lost or won, then the others in order."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for one in compared:
        if one.task.kind == "likelihood" or not count:
            continue
        first = one.comparisons[0].metric
        before, after = (one.measures[first][side].values for side in _SIDES)
        sign = 1.0 if one.comparisons[0].higher_is_better else -1.0
        shift = [0.0 if math.isnan(late - early) else sign * float(late - early) for early, late in zip(before, after, strict=True)]
        order = sorted(range(len(shift)), key=lambda index: (shift[index], one.task.items[index].id))
        won = [index for index in reversed(order) if shift[index] > 0]
        lost = [index for index in order if shift[index] < 0]
        same = [index for index in order if shift[index] == 0]
        half = count // 2
        picked = [*won[: count - min(half, len(lost))], *lost[:half]]
        picked += same[: count - len(picked)]
        chosen[one.task.name] = [_example(one, index, (before[index], after[index])) for index in picked]
    return chosen


def _example(one: Compared, index: int, scores: tuple[float, float]) -> dict[str, Any]:
    item = one.task.items[index]
    base, tuned = (_shown(one, one.graded[side][index]) for side in _SIDES)
    marks = [None if math.isnan(value) else float(value) for value in scores]
    return {
        "language": item.language,
        "prompt": item.prompt[-1].content if item.prompt else "",
        "target": item.target,
        "base": base,
        "tuned": tuned,
        "base_score": marks[0],
        "tuned_score": marks[1],
    }


def lengths(compared: Sequence[Compared]) -> dict[str, dict[str, list[int]]]:
    """Return the lengths of written answers in tokens, by task and side."""
    return {one.task.name: {side: [graded.answer.tokens for graded in one.graded[side]] for side in _SIDES} for one in compared if one.task.kind == "generate"}
