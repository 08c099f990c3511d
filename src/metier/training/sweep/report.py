"""The report of a sweep: one HTML file that stands alone, with no script and no request to anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metier.training.sweep.pictures import curve_picture, importance_picture, trials_picture
from metier.training.sweep.quantity import Quantity

__all__ = ["headline", "short", "write_report"]


def write_report(project: str, facts: Mapping[str, Any]) -> str:
    """Return the report as HTML; `facts` are what `metier.training.sweep.search` returned. Everything is escaped."""
    loader = FileSystemLoader(Path(__file__).parent / "data")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(value=_value, count=_count, short=short)
    best, recommended = facts["best"], facts["recommended"]
    by = Quantity(**facts["compared"])
    limit = None if best is None or best["standard_error"] is None else by.cost(by.cost(best["value"]) + best["standard_error"])
    size = (facts["size"] or "").rsplit(".", 1)[-1]
    return environment.get_template("report.html.j2").render(
        project=project,
        facts=facts,
        by=by,
        headline=headline(facts),
        keys=list(facts["trials"][0]["settings"]) if facts["trials"] else [],
        size=size,
        curve=curve_picture(facts["curve"], limit, label=size, by=by),
        trials=trials_picture(facts["trials"], None if recommended is None else recommended["number"], by),
        importance=importance_picture(facts["importance"]),
    )


def headline(facts: Mapping[str, Any]) -> str:
    """Return which settings to take, in one line."""
    recommended = facts["recommended"]
    if recommended is None:
        return "No trial is complete: nothing can be recommended."
    return "Take " + ", ".join(f"{key} {short(value)}" for key, value in recommended["settings"].items()) + f" (trial {recommended['number']})."


def short(value: Any) -> str:
    """Return a setting as a reader knows it from the project file."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def _value(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.4f}"


def _count(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:,.0f}"
