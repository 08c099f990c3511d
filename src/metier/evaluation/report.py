"""The report: one HTML file that stands alone, with no script and no request to anywhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metier.artifacts import Artifact
from metier.charts import lines
from metier.evaluation.charts import Row, histogram, whiskers
from metier.evaluation.compare import GAIN, LOSS, SAME

__all__ = ["remarks", "training_points", "write_report"]

_HIDDEN = ("settings", "environment", "template")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def write_report(
    evaluation_facts: Mapping[str, Any],
    dataset_facts: Mapping[str, Any],
    run_facts: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    examples: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    lengths: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> str:
    """Return the report as HTML.

    The three facts are those of the artefacts' manifests; `metrics` are the rows of the training's metrics.jsonl (step, loss,
    perhaps validation_loss); `examples` and `lengths` (answer lengths in tokens) are by task. Everything is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "data"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=_number, signed=_signed, p=_p, range=_range, plain=_plain)
    table = evaluation_facts["tasks"]
    firsts = {task: next(iter(rows.values())) for task, rows in table.items()}
    pictures = {name: histogram(sides["base"], sides["tuned"], title=f"answer lengths, {name}", x_label="tokens") for name, sides in (lengths or {}).items()}
    return environment.get_template("report.html.j2").render(
        facts=evaluation_facts,
        table=table,
        headline=_headline(firsts),
        several_languages=any("languages" in row for row in firsts.values()),
        remarks=remarks(evaluation_facts),
        shares=_scores(evaluation_facts, shares=True),
        others=_scores(evaluation_facts, shares=False),
        loss=_loss(metrics),
        run=run_facts,
        run_settings=_settings(run_facts),
        run_figures=_figures(run_facts),
        run_lists=_row_tables(run_facts),
        data_tables=_count_tables(dataset_facts),
        data_lists=_row_tables(dataset_facts),
        settings=settings or {},
        examples=examples or {},
        pictures=pictures,
    )


def _number(value: float | None) -> str:
    return "\u2013" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _signed(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:+.3f}".replace("-", "\u2212")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _range(interval: Mapping[str, float | None]) -> str:
    if interval["low"] is None or interval["high"] is None:
        return "not defined"
    return f"{interval['low']:.3f} to {interval['high']:.3f}".replace("-", "\u2212")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "\u2013"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "\u2013"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return f"{value[:12]}\u2026"
    return "\u2013" if value is None else str(value)


def _headline(firsts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the finding in one sentence: what gained, what lost, what did not clearly change."""
    groups = {word: [task for task, row in firsts.items() if row["verdict"] == word] for word in (GAIN, LOSS, SAME)}
    if not groups[GAIN] and not groups[LOSS]:
        return "No clear difference between the tuned model and its base on any task."
    parts = []
    for word, verb in ((GAIN, "better than its base on"), (LOSS, "worse on"), (SAME, "not clearly different on")):
        if groups[word]:
            parts.append(f"{verb} {', '.join(groups[word])}")
    return f"The tuned model is {'; '.join(parts)}."


def remarks(facts: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to know before believing the figures, in plain words: also, and first, where there is no gain."""
    found: list[str] = []
    for task, rows in facts["tasks"].items():
        metric, row = next(iter(rows.items()))
        if row["verdict"] == LOSS:
            found.append(f"{task}: the tuned model is worse ({metric} {_signed(row['delta']['value'])}).")
        elif row["verdict"] == SAME:
            seen = row["minimum_detectable"]
            least = "" if seen is None else f" With {row['n']} items only a true difference of {seen:.3f} or more would be seen four times in five."
            found.append(f"{task}: no clear gain ({metric} {_signed(row['delta']['value'])}, interval {_range(row['delta'])}).{least}")
    for task, chance in facts["chance"].items():
        if chance["base_below_chance"]:
            what = f"guessing gives {chance['chance']:.3f} and the base is below it: its choices fail on form, so a gain here says little of knowledge"
            found.append(f"{task}: {what}.")
    for task, split in facts["format"].items():
        delta = split["delta"]
        if delta["format"] is None and delta["total"] > 0:
            found.append(f"{task}: the base never gave a valid answer, so format and knowledge cannot be told apart.")
        elif delta["format"] is not None and delta["total"] > 0 and delta["format"] > delta["knowledge"]:
            found.append(f"{task}: most of the change is format ({_signed(delta['format'])}), not knowledge ({_signed(delta['knowledge'])}).")
    kept = facts["retention"]
    if kept is not None and not kept["measurable"]:
        found.append("Retention is not measurable: the base is not clearly above guessing on any family of the probe.")
    elif kept is not None and kept["forgetting"]["low"] > 0.05:
        found.append(f"General ability was lost: {kept['forgetting']['value']:.3f} on average over the families of the probe.")
    for task, items in facts["items"].items():
        for reason, count in items["left_out"].items():
            found.append(f"{task}: {count} items could not be asked ({reason}).")
    return [*found, *facts["notes"]]


def _triple(interval: Mapping[str, float | None]) -> tuple[float, float, float]:
    value, low, high = (math.nan if interval[name] is None else float(interval[name] or 0.0) for name in ("value", "low", "high"))
    return value, low, high


def _scores(facts: Mapping[str, Any], *, shares: bool) -> Markup:
    """Return the picture of the tasks' first metrics: those between 0 and 1 on one scale, or all the others."""
    rows = []
    for task, metrics in facts["tasks"].items():
        metric, row = next(iter(metrics.items()))
        base, tuned = _triple(row["base"]), _triple(row["tuned"])
        inside = all(0 <= value <= 1 for value in (*base, *tuned) if math.isfinite(value)) and row["higher_is_better"]
        if inside == shares:
            chance = facts["chance"].get(task, {}).get("chance") if metric in ("acc", "accuracy", "acc_norm") else None
            arrow = "" if row["higher_is_better"] else " \u2193"
            note = f"{metric}{arrow}, n = {row['n']}"
            rows.append(Row(task, note, base, tuned, chance))
    return whiskers(rows, title="scores with intervals", span=(0.0, 1.0) if shares else None)


def _loss(metrics: Sequence[Mapping[str, Any]]) -> Markup:
    points: dict[str, list[tuple[float, float]]] = {"tuned": [], "validation": []}
    for row in metrics:
        for name, key in (("tuned", "loss"), ("validation", "validation_loss")):
            if row.get(key) is not None:
                points[name].append((float(row["step"]), float(row[key])))
    return lines(points, title="training loss", x_label="step")


def _settings(run: Mapping[str, Any]) -> list[tuple[str, Any, Any, bool]]:
    """Return (key, asked, effective, was asked) of the training's settings; what was not asked has its default."""
    settings = run.get("settings") or {}
    asked, effective = (dict(_flat(settings.get(side) or {})) for side in ("asked", "effective"))
    return [(key, asked.get(key), effective.get(key), key in asked) for key in dict.fromkeys([*asked, *effective])]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of sections with their keys as the project file's errors write them."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _figures(run: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in run.items():
        name = f"{prefix}{key.removesuffix('_bytes').replace('_', ' ')}"
        if isinstance(value, Mapping) and key not in _HIDDEN:
            found += _figures(value, f"{name} ")
        elif key not in _HIDDEN and value is not None and not _rows(value):
            found.append((name, f"{value / 2**20:,.0f} MiB" if key.endswith("_bytes") else value))
    return found


def _counts(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, int) and not isinstance(item, bool) for item in value.values())


def _count_tables(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, list[tuple[str, int]]]]:
    """Return every mapping of counts in the dataset's facts as a titled table, largest count first."""
    tables = []
    for key, value in facts.items():
        title = f"{prefix} {'records by' if key == 'counts' else key}".strip().replace("_", " ")
        if key in _HIDDEN or key == "steps":
            continue
        if _counts(value):
            tables.append((title, sorted(((str(name), count) for name, count in value.items()), key=lambda pair: (-pair[1], pair[0]))))
        elif isinstance(value, Mapping):
            tables += _count_tables(value, title)
    return tables


def _rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _row_tables(facts: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[Any]]]]:
    """Return every list of mappings in facts (the register of sources, the stages of a training) as (title, columns, rows); of lists in these, the length."""
    tables = []
    for key, value in facts.items():
        if key not in (*_HIDDEN, "steps") and _rows(value):
            columns = list(dict.fromkeys(name for item in value for name in item))
            tables.append((key.replace("_", " "), columns, [[_counted(item.get(name)) for name in columns] for item in value]))
    return tables


def _counted(value: Any) -> Any:
    return len(value) if _rows(value) else value


def training_points(run: Artifact | None) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics.jsonl; a run without the file has none."""
    if run is None or "metrics.jsonl" not in run.files:
        return []
    return [json.loads(line) for line in run.file("metrics.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
